//! Quality against cost, a point for each model: bits per byte, mean accuracy and the first score of texts, each
//! against the costs in which the models differ, one panel each.

mod costs;

use std::path::Path;

use iiet_eval::report::{Estimate, ModelReport, Report};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use self::costs::Cost;
use crate::axis::{log_ticks, range, ticks_below};
use crate::legend::{DASH, width_of};
use crate::placement::{Area, place};
use crate::theme::{FAINT, GRID, INK, PAPER, SERIES, text};
use crate::{Drawn, PlotError, save};

const WIDTH: u32 = 960;
const PANEL: u32 = 430;
const REFERENCE: RGBColor = SERIES[1];
const MODEL: RGBColor = SERIES[0];
const RADIUS: i32 = 5;
/// Of names, in pixels.
const TEXT: u32 = 13;
/// Characters of a name that are shown.
const LONGEST: usize = 40;
/// Costs that differ by this factor or more are on a logarithmic scale.
const LOGARITHMIC: f64 = 2.0;

type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Writes the chart of a report as SVG.
///
/// Across is a cost: MFLOPs of a forward pass per token (of an encoder-decoder of a source token and a target token),
/// megabytes of weights, milliseconds of a decoded token.
/// A cost in which the models are alike has no panel. Bars are one standard error: of the difference from the reference, whose own value is the dashed line.
///
/// # Errors
///
/// [`PlotError`] if the file cannot be drawn or written.
pub fn draw_quality(path: &Path, report: &Report) -> Result<(), PlotError> {
    save(path, |svg| render(svg, &Quality::panels(report)))
}

/// What is up in a panel, and what is across.
struct Quality<'a> {
    title: String,
    unit: &'a str,
    across: &'static str,
    caption: String,
    points: Vec<Point<'a>>,
}

/// A model's place in a panel.
#[derive(Clone)]
struct Point<'a> {
    name: &'a str,
    cost: f64,
    value: f64,
    /// Half of the bar.
    error: f64,
    is_reference: bool,
}

impl<'a> Quality<'a> {
    /// The panels that there are numbers for.
    fn panels(report: &'a Report) -> Vec<Self> {
        let panels = Cost::of_report(report).into_iter().flat_map(|cost| {
            let bits = Self::of(
                report,
                ("Bits per byte: lower is better", "bits per byte", cost),
                |model| model.quality.bits_per_byte,
                |model| model.quality.bits_per_byte_difference,
            );
            let accuracy = Self::of(
                report,
                ("Mean accuracy: higher is better", "accuracy", cost),
                |model| model.quality.accuracy,
                |model| model.quality.accuracy_difference,
            );
            let reference = report.models.first();
            let score = reference.and_then(|model| model.quality.of_texts());
            let score = score.and_then(|score| {
                let title = format!("{} of {}: higher is better", score.metric, score.task);
                Self::of(
                    report,
                    (&title, &score.metric, cost),
                    |model| Some(model.quality.of_texts()?.estimate),
                    |model| model.quality.of_texts()?.difference,
                )
            });
            [bits, accuracy, score].into_iter().flatten()
        });
        panels.collect()
    }

    fn of(
        report: &'a Report,
        (title, unit, cost): (&str, &'a str, Cost),
        value: fn(&ModelReport) -> Option<Estimate>,
        difference: fn(&ModelReport) -> Option<Estimate>,
    ) -> Option<Self> {
        let alone = report.models.len() == 1;
        let (mut points, mut missing) = (Vec::new(), Vec::new());
        let mut measured = false;
        for (number, model) in report.models.iter().enumerate() {
            let value = value(model);
            measured |= value.is_some();
            let error = if alone { value } else { difference(model) };
            let error = error.and_then(|estimate| estimate.standard_error);
            match value.filter(|estimate| estimate.value.is_finite()) {
                None => missing.push(model.name.as_str()),
                Some(estimate) => points.push(Point {
                    name: &model.name,
                    cost: (cost.of)(model),
                    value: estimate.value,
                    error: error.filter(|error| error.is_finite()).unwrap_or(0.0),
                    is_reference: number == 0,
                }),
            }
        }
        let mut caption = match &report.models[..] {
            [reference, _, ..] => format!(
                "Bars: one standard error of the difference from {} (dashed), item by item.",
                shortened(&reference.name)
            ),
            _ => "Bars: one standard error.".to_owned(),
        };
        if !missing.is_empty() {
            caption += &format!(" Not finite: {}.", missing.join(", "));
        }
        measured.then_some(Self {
            title: title.to_owned(),
            unit,
            across: cost.caption,
            caption,
            points,
        })
    }

    fn render(&self, area: &Panel<'_>) -> Drawn {
        area.draw_text(&self.title, &text(18, INK, HPos::Left), (16, 22))?;
        area.draw_text(&self.caption, &text(12, FAINT, HPos::Left), (16, 44))?;
        let plot = area.margin(54, 0, 0, 0);
        if self.points.is_empty() {
            return Ok(());
        }
        let costs = || self.points.iter().map(|point| point.cost);
        let least = costs().fold(f64::INFINITY, f64::min);
        let most = costs().fold(0.0, f64::max);
        let logarithmic = least > 0.0 && most >= LOGARITHMIC * least;
        let place = |cost: f64| if logarithmic { cost.log10() } else { cost };
        let ends = self.points.iter().flat_map(|point| {
            let Point { value, error, .. } = *point;
            [value - error, value + error]
        });
        let (up, decimals) = range(ends);
        let space = (0.12 * (place(most) - place(least))).max(0.1 * place(most).abs());
        let space = space.max(if logarithmic { 0.1 } else { 1e-3 });
        let across = place(least) - space..place(most) + 1.5 * space;
        let (_, cost_decimals) = range([across.start, across.end].into_iter());
        let mut chart = ChartBuilder::on(&plot)
            .margin(12)
            .x_label_area_size(46)
            .y_label_area_size(68)
            .build_cartesian_2d(across.clone(), up)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(FAINT)
            .x_labels(if logarithmic { 0 } else { 8 })
            .axis_desc_style(text(13, FAINT, HPos::Center))
            .label_style(text(12, INK, HPos::Center))
            .y_desc(self.unit)
            .x_label_formatter(&|cost| format!("{cost:.cost_decimals$}"))
            .y_label_formatter(&|value| format!("{value:.decimals$}"))
            .draw()?;
        if let Some(reference) = self.points.iter().find(|point| point.is_reference) {
            let level = [
                (across.start, reference.value),
                (across.end, reference.value),
            ];
            let style = REFERENCE.mix(0.6).stroke_width(1);
            chart.draw_series(DashedLineSeries::new(level, DASH.0, DASH.1, style))?;
        }
        // The reference last, above what lies in the same place.
        for point in self.points.iter().rev() {
            let (x, color) = (place(point.cost), point.color());
            let Point { value, error, .. } = *point;
            let bar = vec![(x, value - error), (x, value + error)];
            let drawn = chart.plotting_area();
            drawn.draw(&PathElement::new(bar, color.stroke_width(1)))?;
            drawn.draw(&Circle::new((x, value), RADIUS, color.filled()))?;
        }
        // From here on in pixels of this panel.
        let (left, top) = plot.get_base_pixel();
        let pixel = |x: f64, y: f64| {
            let (x, y) = chart.backend_coord(&(x, y));
            (f64::from(x - left), f64::from(y - top))
        };
        let (columns, rows) = chart.plotting_area().get_pixel_range();
        let bounds = Area {
            left: f64::from(columns.start - left),
            top: f64::from(rows.start - top),
            width: f64::from(columns.end - columns.start),
            height: f64::from(rows.end - rows.start),
        };
        let scale = if logarithmic {
            ", logarithmic scale"
        } else {
            ""
        };
        let caption = format!("{}{scale}", self.across);
        let ticks: Vec<(i32, String)> = match logarithmic {
            true => log_ticks(10f64.powf(across.start), 10f64.powf(across.end))
                .into_iter()
                .map(|cost| {
                    (
                        pixel(cost.log10(), self.points[0].value).0 as i32,
                        cost.to_string(),
                    )
                })
                .collect(),
            false => Vec::new(),
        };
        let ends = (columns.start - left, columns.end - left);
        ticks_below(&plot, &ticks, ends, rows.end - top, &caption)?;
        let at: Vec<(f64, f64)> = self
            .points
            .iter()
            .map(|point| pixel(place(point.cost), point.value))
            .collect();
        let bar_ends: Vec<f64> = self
            .points
            .iter()
            .map(|point| pixel(place(point.cost), point.value + point.error).1)
            .collect();
        self.label(&plot, &at, &bar_ends, &bounds)
    }

    /// Writes the names beside the points, clear of points and bars, with lines to those at another
    /// height.
    fn label(&self, area: &Panel<'_>, at: &[(f64, f64)], bar_ends: &[f64], bounds: &Area) -> Drawn {
        let names: Vec<String> = self
            .points
            .iter()
            .map(|point| shortened(point.name))
            .collect();
        let sizes: Vec<(f64, f64)> = names
            .iter()
            .map(|name| (f64::from(width_of(name, TEXT)), f64::from(TEXT) + 3.0))
            .collect();
        let around = |x: f64, y: f64, half_width: f64, half_height: f64| Area {
            left: x - half_width,
            top: y - half_height,
            width: 2.0 * half_width,
            height: 2.0 * half_height,
        };
        let radius = f64::from(RADIUS);
        let mut taken = Vec::new();
        for ((x, y), end) in at.iter().zip(bar_ends) {
            taken.push(around(*x, *y, radius, radius));
            taken.push(around(*x, *y, 1.0, y - end));
        }
        let places = place(at, &sizes, &taken, bounds);
        for (((name, point), at), place) in names.iter().zip(&self.points).zip(at).zip(places) {
            let whole = |(x, y): (f64, f64)| (x.round() as i32, y.round() as i32);
            let middle = place.top + place.height / 2.0;
            let edge = place.nearest((at.0, middle));
            let gap = if edge.0 > at.0 { -3.0 } else { 3.0 };
            let toward = if edge.0 > at.0 { radius } else { -radius };
            if (middle - at.1).abs() > 4.0 || (edge.0 - at.0).abs() > 20.0 {
                let line = vec![whole((at.0 + toward, at.1)), whole((edge.0 + gap, middle))];
                area.draw(&PathElement::new(line, FAINT.mix(0.7).stroke_width(1)))?;
            }
            // The dashed line must not strike out a name.
            let corners = [
                (place.left, place.top),
                (place.left + place.width, place.top + place.height),
            ];
            let behind = corners.map(whole);
            area.draw(&Rectangle::new(behind, PAPER.mix(0.8).filled()))?;
            let style = text(TEXT, point.color(), HPos::Left);
            area.draw_text(name, &style, whole((place.left, middle)))?;
        }
        Ok(())
    }
}

impl Point<'_> {
    fn color(&self) -> RGBColor {
        if self.is_reference { REFERENCE } else { MODEL }
    }
}

fn render(svg: &mut String, panels: &[Quality<'_>]) -> Drawn {
    let rows = panels.len().max(1);
    let size = (WIDTH, PANEL * rows as u32);
    let area = SVGBackend::with_string(svg, size).into_drawing_area();
    area.fill(&PAPER)?;
    for (panel, part) in panels.iter().zip(area.split_evenly((rows, 1))) {
        panel.render(&part)?;
    }
    area.present()?;
    Ok(())
}

/// The end of a long name: there names differ.
fn shortened(name: &str) -> String {
    crate::legend::shortened(name, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(points: Vec<Point<'_>>) -> Quality<'_> {
        Quality {
            title: "Bits per byte: lower is better".into(),
            unit: "bits per byte",
            across: costs::FLOPS.caption,
            caption: "Bars: one standard error.".into(),
            points,
        }
    }

    fn point(name: &str, cost: f64, value: f64) -> Point<'_> {
        Point {
            name,
            cost,
            value,
            error: 0.01,
            is_reference: name == "teacher",
        }
    }

    fn drawn(panels: &[Quality<'_>]) -> String {
        let mut svg = String::new();
        render(&mut svg, panels).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        svg
    }

    #[test]
    fn every_model_has_a_point_and_a_name() {
        let names: Vec<String> = (0..13).map(|i| format!("model-{i}")).collect();
        let points: Vec<Point<'_>> = names
            .iter()
            .enumerate()
            .map(|(i, name)| point(name, 40.0 - i as f64, 1.8))
            .collect();
        let svg = drawn(&[panel(points.clone()), panel(points)]);
        for name in &names {
            assert_eq!(svg.matches(&format!("\n{name}\n")).count(), 2, "{name}");
        }
        assert_eq!(svg.matches("<circle").count(), 26);
    }

    #[test]
    fn costs_far_apart_are_on_a_logarithmic_scale() {
        let far = drawn(&[panel(vec![
            point("teacher", 100.0, 1.8),
            point("b", 20.0, 1.9),
        ])]);
        assert!(far.contains("MFLOPs per token, forward pass, logarithmic scale"));
        for tick in ["20", "50", "100"] {
            assert!(far.contains(&format!("\n{tick}\n")), "{tick}");
        }
        let near = drawn(&[panel(vec![
            point("teacher", 21.0, 1.8),
            point("b", 20.0, 1.9),
        ])]);
        assert!(near.contains("forward pass") && !near.contains("logarithmic"));
    }

    #[test]
    fn small_costs_have_ticks_that_differ() {
        let svg = drawn(&[panel(vec![
            point("teacher", 0.35, 1.8),
            point("b", 0.28, 1.9),
        ])]);
        for tick in ["0.28", "0.32"] {
            assert!(svg.contains(&format!("\n{tick}\n")), "{tick}: {svg}");
        }
    }

    #[test]
    fn nothing_to_draw_is_an_empty_picture() {
        assert_eq!(drawn(&[]).matches("<circle").count(), 0);
        assert_eq!(drawn(&[panel(vec![])]).matches("<circle").count(), 0);
        // A single free model.
        drawn(&[panel(vec![point("a", 0.0, 0.0)])]);
    }

    #[test]
    fn long_names_keep_their_ends() {
        let name = format!("{}-tau-0.01", "x".repeat(60));
        let short = shortened(&name);
        assert_eq!(short.chars().count(), LONGEST);
        assert!(short.starts_with("..") && short.ends_with("-tau-0.01"));
    }
}
