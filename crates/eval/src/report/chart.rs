//! Quality against cost, a point a model: bits per byte and mean accuracy, one panel each.

use std::io::Write;
use std::path::Path;

use iiet_files::write_file;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::placement::{Area, place};
use super::{Estimate, ModelReport, Report};
use crate::error::EvalError;

const WIDTH: u32 = 960;
const PANEL: u32 = 430;
const REFERENCE: RGBColor = RGBColor(200, 60, 40);
const MODEL: RGBColor = RGBColor(40, 90, 160);
const FAINT: RGBColor = RGBColor(120, 120, 120);
const GRID: RGBColor = RGBColor(232, 232, 232);
const RADIUS: i32 = 5;
/// Of names, in pixels; a character is a little more than half as wide as it is high.
const TEXT: u32 = 13;
/// Characters of a name that are shown.
const LONGEST: usize = 40;

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Writes the chart as SVG.
///
/// Across is the cost: evaluations a token where the models' blocks are of one size, else FLOPs. Bars
/// are one standard error: of the difference from the reference, whose own value is the dashed line.
///
/// # Errors
/// [`EvalError::Drawing`] if the file cannot be written.
pub fn draw(report: &Report, path: &Path) -> Result<(), EvalError> {
    let failed = |reason: String| EvalError::Drawing {
        path: path.to_owned(),
        reason,
    };
    let mut svg = String::new();
    render(&mut svg, report).map_err(|error| failed(error.to_string()))?;
    write_file(path, |file| file.write_all(svg.as_bytes()))
        .map_err(|error| failed(error.to_string()))?;
    Ok(())
}

/// What is up, and of which of the numbers of a model.
struct Panel {
    title: &'static str,
    unit: &'static str,
    value: fn(&ModelReport) -> Option<Estimate>,
    difference: fn(&ModelReport) -> Option<Estimate>,
}

const PANELS: [Panel; 2] = [
    Panel {
        title: "Bits per byte, less is better",
        unit: "bits per byte",
        value: |model| model.quality.bits_per_byte,
        difference: |model| model.quality.bits_per_byte_difference,
    },
    Panel {
        title: "Mean accuracy, more is better",
        unit: "accuracy",
        value: |model| model.quality.accuracy,
        difference: |model| model.quality.accuracy_difference,
    },
];

fn render(svg: &mut String, report: &Report) -> Drawn {
    let shown: Vec<&Panel> = PANELS
        .iter()
        .filter(|panel| {
            report
                .models
                .iter()
                .any(|model| (panel.value)(model).is_some())
        })
        .collect();
    let size = (WIDTH, PANEL * shown.len().max(1) as u32);
    let area = SVGBackend::with_string(svg, size).into_drawing_area();
    area.fill(&WHITE)?;
    let cost = Cost::of(report);
    for (panel, part) in shown.iter().zip(area.split_evenly((shown.len().max(1), 1))) {
        panel.render(&part, report, &cost)?;
    }
    area.present()?;
    Ok(())
}

/// What is across.
struct Cost {
    unit: &'static str,
    of: fn(&ModelReport) -> f64,
}

impl Cost {
    /// An evaluation is worth the same only where all blocks have the same size.
    fn of(report: &Report) -> Self {
        let sizes = |model: &ModelReport| (model.d_model, model.d_ff);
        let first = report.models.first().map(sizes);
        match report
            .models
            .iter()
            .all(|model| Some(sizes(model)) == first)
        {
            true => Self {
                unit: "evaluations a token",
                of: |model| model.cost.evaluations as f64,
            },
            false => Self {
                unit: "MFLOPs a token, forward",
                of: |model| model.cost.forward_flops / 1e6,
            },
        }
    }
}

/// A model's place in a panel.
struct Point<'a> {
    name: &'a str,
    x: f64,
    y: f64,
    /// Half of the bar.
    error: f64,
    color: RGBColor,
}

impl Panel {
    fn render(
        &self,
        area: &DrawingArea<SVGBackend<'_>, Shift>,
        report: &Report,
        cost: &Cost,
    ) -> Drawn {
        let (points, missing) = self.points(report, cost);
        area.draw_text(self.title, &text(18, BLACK, HPos::Left), (12, 20))?;
        area.draw_text(
            &caption(report, &missing),
            &text(12, FAINT, HPos::Left),
            (12, 42),
        )?;
        let area = area.margin(54, 0, 0, 0);
        let most = points.iter().map(|point| point.x).fold(0.0, f64::max);
        let (lowest, highest) =
            points
                .iter()
                .fold((f64::INFINITY, f64::NEG_INFINITY), |range, point| {
                    (
                        range.0.min(point.y - point.error),
                        range.1.max(point.y + point.error),
                    )
                });
        if points.is_empty() {
            return Ok(());
        }
        let margin = (0.15 * (highest - lowest))
            .max(1e-3 * highest.abs())
            .max(1e-6);
        let decimals = (1.0 - (highest - lowest + margin).log10())
            .ceil()
            .clamp(1.0, 6.0) as usize;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..1.2 * most.max(1.0), lowest - margin..highest + margin)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .x_desc(cost.unit)
            .y_desc(self.unit)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| format!("{y:.decimals$}"))
            .draw()?;
        if let Some(reference) = points.iter().find(|point| point.color == REFERENCE) {
            let level = [(0.0, reference.y), (1.2 * most.max(1.0), reference.y)];
            chart.draw_series(DashedLineSeries::new(
                level,
                4,
                4,
                REFERENCE.mix(0.6).stroke_width(1),
            ))?;
        }
        // The reference last, above what lies in the same place.
        for point in points.iter().rev() {
            let bar = vec![
                (point.x, point.y - point.error),
                (point.x, point.y + point.error),
            ];
            chart
                .plotting_area()
                .draw(&PathElement::new(bar, point.color.stroke_width(1)))?;
            let circle = Circle::new((point.x, point.y), RADIUS, point.color.filled());
            chart.plotting_area().draw(&circle)?;
        }
        // From here on in pixels of this panel.
        let (left, top) = area.get_base_pixel();
        let pixel = |x: f64, y: f64| {
            let (x, y) = chart.backend_coord(&(x, y));
            (f64::from(x - left), f64::from(y - top))
        };
        let (across, down) = chart.plotting_area().get_pixel_range();
        let bounds = Area {
            left: f64::from(across.start - left),
            top: f64::from(down.start - top),
            width: f64::from(across.end - across.start),
            height: f64::from(down.end - down.start),
        };
        label(&area, &points, pixel, &bounds)
    }

    /// The points that there are, and the names of models without: their numbers are not finite.
    fn points<'a>(&self, report: &'a Report, cost: &Cost) -> (Vec<Point<'a>>, Vec<&'a str>) {
        let (mut points, mut missing) = (Vec::new(), Vec::new());
        let alone = report.models.len() == 1;
        for (number, model) in report.models.iter().enumerate() {
            let value = (self.value)(model);
            let error = match alone {
                true => value,
                false => (self.difference)(model),
            };
            let error = error.and_then(|estimate| estimate.standard_error);
            match value.filter(|estimate| estimate.value.is_finite()) {
                None => missing.push(model.name.as_str()),
                Some(estimate) => points.push(Point {
                    name: &model.name,
                    x: (cost.of)(model),
                    y: estimate.value,
                    error: error.filter(|error| error.is_finite()).unwrap_or(0.0),
                    color: if number == 0 { REFERENCE } else { MODEL },
                }),
            }
        }
        (points, missing)
    }
}

fn caption(report: &Report, missing: &[&str]) -> String {
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
    caption
}

/// Writes the names beside the points, clear of points and bars, with a line to those further away.
fn label(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    points: &[Point<'_>],
    pixel: impl Fn(f64, f64) -> (f64, f64),
    bounds: &Area,
) -> Drawn {
    let names: Vec<String> = points.iter().map(|point| shortened(point.name)).collect();
    let sizes: Vec<(f64, f64)> = names
        .iter()
        .map(|name| {
            (
                (0.55 * f64::from(TEXT) * name.chars().count() as f64).ceil(),
                f64::from(TEXT) + 2.0,
            )
        })
        .collect();
    let at: Vec<(f64, f64)> = points.iter().map(|point| pixel(point.x, point.y)).collect();
    let around = |x: f64, y: f64, half_width: f64, half_height: f64| Area {
        left: x - half_width,
        top: y - half_height,
        width: 2.0 * half_width,
        height: 2.0 * half_height,
    };
    let radius = f64::from(RADIUS);
    let level = points
        .iter()
        .zip(&at)
        .find(|(point, _)| point.color == REFERENCE);
    let dashed = level.map(|(_, (_, y))| Area {
        top: y - 1.0,
        height: 2.0,
        ..*bounds
    });
    let mut taken: Vec<Area> = dashed.into_iter().collect();
    for (point, (x, y)) in points.iter().zip(&at) {
        taken.push(around(*x, *y, radius, radius));
        let (_, end) = pixel(point.x, point.y + point.error);
        taken.push(around(*x, *y, 1.0, y - end));
    }
    for (((name, point), at), place) in names
        .iter()
        .zip(points)
        .zip(&at)
        .zip(place(&at, &sizes, &taken, bounds))
    {
        let near = place.nearest(*at);
        let whole = |(x, y): (f64, f64)| (x.round() as i32, y.round() as i32);
        if (near.0 - at.0).hypot(near.1 - at.1) > 2.0 * radius + 2.0 {
            let line = vec![whole(*at), whole(near)];
            area.draw(&PathElement::new(line, FAINT.stroke_width(1)))?;
        }
        let middle = (
            place.left + place.width / 2.0,
            place.top + place.height / 2.0,
        );
        area.draw_text(name, &text(TEXT, point.color, HPos::Center), whole(middle))?;
    }
    Ok(())
}

/// The end of a long name: there names differ.
fn shortened(name: &str) -> String {
    match name.chars().count() {
        0..=LONGEST => name.to_owned(),
        length => format!(
            "..{}",
            name.chars().skip(length - LONGEST + 2).collect::<String>()
        ),
    }
}

fn text(size: u32, color: RGBColor, anchor: HPos) -> TextStyle<'static> {
    TextStyle {
        color: color.to_backend_color(),
        ..TextStyle::from(("sans-serif", size).into_font())
    }
    .pos(Pos::new(anchor, VPos::Center))
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    fn drawn(report: &Report) -> String {
        let mut svg = String::new();
        render(&mut svg, report).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        svg
    }

    #[test]
    fn every_model_is_in_both_panels() {
        let models = (0..13).map(|i| example::model(&format!("model-{i}"), 48 - 3 * i, 0.4));
        let report = example::report(models.collect());
        let svg = drawn(&report);
        for text in ["Bits per byte", "Mean accuracy", "evaluations a token"] {
            assert!(svg.contains(text), "{text}");
        }
        for model in &report.models {
            let label = format!("\n{}\n", model.name);
            assert_eq!(svg.matches(&label).count(), 2, "{}", model.name);
        }
        // A point in each panel.
        assert_eq!(svg.matches("<circle").count(), 26);
    }

    #[test]
    fn models_of_other_sizes_are_drawn_by_flops() {
        let mut report = example::report(vec![
            example::model("a", 8, 0.5),
            example::model("b", 4, 0.5),
        ]);
        report.models[1].d_model *= 2;
        assert!(drawn(&report).contains("MFLOPs a token"));
    }

    #[test]
    fn what_is_not_finite_is_named_and_not_drawn() {
        let mut report = example::report(vec![
            example::model("a", 8, 0.5),
            example::model("diverged", 8, 0.5),
        ]);
        if let Some(bits) = &mut report.models[1].quality.bits_per_byte {
            bits.value = f64::NAN;
        }
        let svg = drawn(&report);
        assert!(svg.contains("Not finite: diverged."), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 3);
    }

    #[test]
    fn one_model_and_one_kind_of_task_are_enough() {
        let mut report = example::report(vec![example::model("alone", 8, 0.5)]);
        report.models[0].quality.bits_per_byte = None;
        let svg = drawn(&report);
        assert!(!svg.contains("Bits per byte") && svg.contains("Mean accuracy"));
        report.models[0].quality.accuracy = None;
        assert_eq!(drawn(&report).matches("<circle").count(), 0);
    }

    #[test]
    fn long_names_keep_their_ends() {
        let name = format!("{}-tau-0.01", "x".repeat(60));
        let short = shortened(&name);
        assert_eq!(short.chars().count(), LONGEST);
        assert!(short.starts_with("..") && short.ends_with("-tau-0.01"));
    }
}
