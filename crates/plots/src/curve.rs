//! `loss.svg`: the training and validation loss against the step.

use std::collections::BTreeSet;
use std::path::Path;

use iiet_train::{CROSS_ENTROPY, Record};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use crate::axis::{Points, clipped, count, range};
use crate::legend::{DASH, Stroke, legend};
use crate::theme::{FAINT, GRID, INK, PAPER, SERIES, text};
use crate::{Drawn, PlotError, save};

const WIDTH: u32 = 960;
/// The height of the panel of the loss.
const LOSS: u32 = 540;
/// The height of the panel of a further term, or of the accuracy.
const TERM: u32 = 230;
/// Pixels above a plot: of the picture's title and a legend, of a panel's own title, and with a legend.
const HEAD: u32 = 92;
const TERM_HEAD: u32 = 34;
const ACCURACY_HEAD: u32 = 58;
const TRAINING: RGBColor = SERIES[0];
const VALIDATION: RGBColor = SERIES[1];
const TERM_COLOR: RGBColor = SERIES[2];
/// Of the logged batches, the share that a point of the smoothed line is the mean of.
const SMOOTHED: f64 = 0.04;

/// What a picture says of a run besides its records.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunLabel {
    /// The run's name, the title.
    pub name: String,
    /// Its model, below the title.
    pub model: String,
    /// The entropy of the validation targets' frequencies, the best without context, in nats per token.
    pub unigram_loss: Option<f64>,
    /// The same in bits per byte of text.
    pub unigram_bits_per_byte: Option<f64>,
}

/// Draws the curves of a log: in bits per byte where every validation is in bits per byte, and else in
/// nats per token. Training is shown batch by batch and smoothed, further terms of the loss in panels
/// of their own. Values that are not finite are left out.
///
/// # Errors
///
/// [`PlotError`] if the file cannot be drawn or written.
pub fn draw_curve(path: &Path, records: &[Record], label: &RunLabel) -> Result<(), PlotError> {
    save(path, |svg| render(svg, records, label))
}

fn render(svg: &mut String, records: &[Record], label: &RunLabel) -> Drawn {
    let curve = |of: &dyn Fn(&Record) -> Option<f64>| -> Points {
        let points = records.iter().map(|r| Some((r.step as f64, of(r)?)));
        // A point that is infinitely far away would make the axes endless.
        points.flatten().filter(|(_, y)| y.is_finite()).collect()
    };
    let mut others: Vec<(String, Panel, u32)> = Vec::new();
    let names: BTreeSet<&String> = records.iter().flat_map(|r| r.terms.keys()).collect();
    for name in names.into_iter().filter(|name| *name != CROSS_ENTROPY) {
        let panel = Panel {
            training: curve(&|r| r.terms.get(name).copied()),
            validation: Vec::new(),
            unigram: None,
            color: TERM_COLOR,
            unit: "nats per token",
        };
        let title = format!("{}, without its weight", name.replace('_', " "));
        others.push((title, panel, TERM_HEAD));
    }
    if records.iter().any(|r| r.accuracy.is_some()) {
        let panel = Panel {
            training: curve(&|r| r.accuracy),
            validation: curve(&|r| r.validation_accuracy),
            unigram: None,
            color: TRAINING,
            unit: "accuracy",
        };
        let title = "share of targets that were the most likely token".to_owned();
        others.push((title, panel, ACCURACY_HEAD));
    }
    let size = (WIDTH, LOSS + TERM * others.len() as u32);
    let area = SVGBackend::with_string(svg, size).into_drawing_area();
    area.fill(&PAPER)?;
    area.draw_text(&label.name, &text(20, INK, HPos::Left), (16, 24))?;
    area.draw_text(&label.model, &text(13, FAINT, HPos::Left), (16, 48))?;
    let (upper, lower) = area.split_vertically(LOSS);

    let bits = in_bits(records);
    let unigram = match bits {
        true => label.unigram_bits_per_byte,
        false => label.unigram_loss,
    };
    let loss = Panel {
        // What validation measures too; a loss of several terms is not drawn, they are.
        training: match bits {
            true => curve(&|r| r.bits_per_byte),
            false => curve(&|r| Some(*r.terms.get(CROSS_ENTROPY).unwrap_or(&r.loss))),
        },
        validation: match bits {
            true => curve(&|r| r.validation_bits_per_byte),
            false => curve(&|r| r.validation_loss),
        },
        unigram: unigram.filter(|unigram| unigram.is_finite()),
        color: TRAINING,
        unit: if bits {
            "bits per byte"
        } else {
            "nats per token"
        },
    };
    loss.render(
        &upper.margin(HEAD, 0, 0, 0),
        &upper,
        records,
        HEAD as i32 - 20,
    )?;
    let rows = lower.split_evenly((others.len().max(1), 1));
    for (area, (title, panel, head)) in rows.iter().zip(&others) {
        area.draw_text(title, &text(14, INK, HPos::Left), (16, 14))?;
        let plot = area.margin(*head, 0, 0, 0);
        panel.render(&plot, area, records, *head as i32 - 20)?;
    }
    area.present()?;
    Ok(())
}

/// Whether the curves can be drawn in bits per byte.
fn in_bits(records: &[Record]) -> bool {
    let mut validated = records.iter().filter(|r| r.validation_loss.is_some());
    let has_training = records.iter().any(|r| r.bits_per_byte.is_some());
    has_training && validated.all(|r| r.validation_bits_per_byte.is_some())
}

/// One quantity against the step.
struct Panel {
    training: Points,
    validation: Points,
    unigram: Option<f64>,
    color: RGBColor,
    unit: &'static str,
}

impl Panel {
    /// Draws the curves into `plot`, and the legend into `area` at a height, if there is more than one
    /// kind of curve.
    fn render(
        &self,
        plot: &DrawingArea<SVGBackend<'_>, Shift>,
        area: &DrawingArea<SVGBackend<'_>, Shift>,
        records: &[Record],
        y_legend: i32,
    ) -> Drawn {
        let window = ((SMOOTHED * self.training.len() as f64) as usize) | 1;
        let smoothed = smoothed(&self.training, window);
        let curves = || smoothed.iter().chain(&self.validation).map(|(_, y)| *y);
        let (up, decimals) = self.range(curves());
        let last = records.last().map_or(1, |r| r.step.max(1));
        let tokens = records.last().map_or(0, |r| r.tokens) as f64 / last as f64;
        let mut chart = ChartBuilder::on(plot)
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..last as f64, up.clone())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(FAINT)
            .axis_desc_style(text(13, FAINT, HPos::Center))
            .label_style(text(12, INK, HPos::Center))
            .x_desc(format!("step (of {} tokens)", count(tokens.round())))
            .y_desc(self.unit)
            .x_label_formatter(&|step| count(*step))
            .y_label_formatter(&|loss| format!("{loss:.decimals$}"))
            .draw()?;

        let line = |color, opacity, width| Stroke {
            color,
            opacity,
            width,
            dashed: false,
            marked: false,
        };
        let single = "training, single batches";
        let mean = format!("training, mean of {window} logged batches");
        let mut drawn: Vec<(Stroke, &str, &Points)> = vec![(
            line(self.color, if window > 1 { 0.35 } else { 1.0 }, 1),
            single,
            &self.training,
        )];
        if window > 1 {
            drawn.push((line(self.color, 1.0, 2), &mean, &smoothed));
        }
        let marked = Stroke {
            marked: true,
            ..line(VALIDATION, 1.0, 2)
        };
        if !self.validation.is_empty() {
            drawn.push((marked, "validation", &self.validation));
        }
        for (stroke, _, points) in &drawn {
            let style = stroke.color.mix(stroke.opacity).stroke_width(stroke.width);
            for part in clipped(points, &up) {
                let marks = part
                    .iter()
                    .filter(|point| stroke.marked && points.contains(point));
                let marks = marks.map(|point| Circle::new(*point, 3, stroke.color.filled()));
                chart.draw_series(marks)?;
                chart.draw_series(LineSeries::new(part, style))?;
            }
        }
        let mut entries: Vec<(Stroke, String)> = drawn
            .iter()
            .map(|(stroke, name, _)| (*stroke, (*name).to_owned()))
            .collect();
        if let Some(unigram) = self.unigram {
            let stroke = Stroke {
                dashed: true,
                ..line(FAINT, 1.0, 1)
            };
            let decimals = decimals.max(2);
            let name = match up.contains(&unigram) {
                true => {
                    let level = [(0.0, unigram), (last as f64, unigram)];
                    let style = FAINT.stroke_width(1);
                    chart.draw_series(DashedLineSeries::new(level, DASH.0, DASH.1, style))?;
                    format!("unigram entropy, {unigram:.decimals$}")
                }
                false => format!("unigram entropy, {unigram:.decimals$} (beyond this scale)"),
            };
            entries.push((stroke, name));
        }
        let entries: Vec<(Stroke, &str)> = entries
            .iter()
            .map(|(stroke, name)| (*stroke, name.as_str()))
            .collect();
        // A term's panel has the colours of the one above.
        if !self.validation.is_empty() || self.unigram.is_some() {
            legend(area, &entries, (16, y_legend))?;
        }
        Ok(())
    }

    /// The range of the curves, and of the unigram entropy if that takes no more than a third of it.
    fn range(&self, curves: impl Iterator<Item = f64> + Clone) -> (std::ops::Range<f64>, usize) {
        let (own, decimals) = range(curves.clone());
        match self.unigram {
            Some(unigram) => {
                let half = 0.5 * (own.end - own.start);
                match (own.start - half..own.end + half).contains(&unigram) {
                    true => range(curves.chain([unigram])),
                    false => (own, decimals),
                }
            }
            None => (own, decimals),
        }
    }
}

/// Means over windows of an odd number of points around each, which are smaller at the ends.
fn smoothed(points: &[(f64, f64)], window: usize) -> Points {
    let half = window / 2;
    let mean = |at: usize| {
        // As many on either side, so that a falling curve is not moved.
        let half = half.min(at).min(points.len() - 1 - at);
        let near = &points[at - half..=at + half];
        near.iter().map(|(_, y)| y).sum::<f64>() / near.len() as f64
    };
    let all = points.iter().enumerate();
    all.map(|(at, (x, _))| (*x, mean(at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: u64, loss: f64) -> Record {
        Record {
            step,
            tokens: 512 * step,
            loss,
            terms: Default::default(),
            accuracy: None,
            bits_per_byte: None,
            lr: 0.0,
            grad_norm: 0.0,
            tokens_per_second: 0.0,
            flops_utilisation: None,
            evaluations: 1,
            exchange_seconds: None,
            validation_loss: (step == 10).then_some(loss),
            validation_accuracy: None,
            validation_bits_per_byte: None,
            validation_by_source: Default::default(),
        }
    }

    fn label() -> RunLabel {
        RunLabel {
            name: "tiny".into(),
            model: "explicit_euler".into(),
            unigram_loss: Some(6.5),
            unigram_bits_per_byte: Some(2.5),
        }
    }

    fn drawn(records: &[Record], label: &RunLabel) -> String {
        let mut svg = String::new();
        render(&mut svg, records, label).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        svg
    }

    #[test]
    fn curves_are_named_with_their_run_and_unit() {
        let svg = drawn(&[record(1, 8.0), record(10, 5.0)], &label());
        for text in [
            "tiny",
            "explicit_euler",
            "validation",
            "training, single batches",
            "unigram entropy, 6.50",
            "nats per token",
            "step (of 512 tokens)",
        ] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(!svg.contains("bits per byte"));
    }

    #[test]
    fn curves_are_in_bits_per_byte_where_both_are_known() {
        let with_bits = |step, loss: f64| Record {
            bits_per_byte: Some(loss / 2.0),
            validation_bits_per_byte: (step == 10).then_some(loss / 2.0),
            ..record(step, loss)
        };
        let svg = drawn(&[with_bits(1, 8.0), with_bits(10, 5.0)], &label());
        assert!(svg.contains("bits per byte") && !svg.contains("nats per token"));
        assert!(svg.contains("unigram entropy, 2.50"), "{svg}");
        // One validation in nats alone, and all are.
        let mixed = drawn(&[with_bits(1, 8.0), record(10, 5.0)], &label());
        assert!(mixed.contains("nats per token"));
    }

    #[test]
    fn a_distant_unigram_entropy_does_not_squash_the_curves() {
        let svg = drawn(&[record(1, 3.1), record(10, 3.0)], &label());
        assert!(svg.contains("6.50 (beyond this scale)"), "{svg}");
        assert!(!svg.contains("\n6.00\n"));
    }

    #[test]
    fn draws_the_terms_and_not_their_sum() {
        let with_terms = |step| Record {
            loss: 1e6,
            terms: [("cross_entropy", 4.0), ("divergence", 0.5)]
                .map(|(name, nats)| (name.to_owned(), nats))
                .into(),
            ..record(step, 4.0)
        };
        let svg = drawn(&[with_terms(1), with_terms(2)], &label());
        assert!(svg.contains("divergence, without its weight") && !svg.contains("cross entropy"));
        assert!(!svg.contains("1000000"));
    }

    #[test]
    fn the_accuracy_has_a_panel_where_there_is_one() {
        let of_task = |step| Record {
            accuracy: Some(0.25),
            validation_accuracy: (step == 10).then_some(0.5),
            ..record(step, 1.5)
        };
        let svg = drawn(&[of_task(1), of_task(10)], &label());
        assert!(svg.contains("share of targets that were the most likely token"));
        assert!(svg.contains("\naccuracy\n") && svg.matches("\nvalidation\n").count() == 2);
        assert!(!drawn(&[record(1, 1.5)], &label()).contains("accuracy"));
    }

    #[test]
    fn leaves_out_values_that_are_not_finite() {
        for value in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            let records = [record(1, 8.0), record(10, value), record(20, 5.0)];
            let label = RunLabel {
                unigram_loss: Some(value),
                unigram_bits_per_byte: Some(value),
                ..label()
            };
            let svg = drawn(&records, &label);
            assert!(svg.len() < 20_000, "{}", svg.len());
        }
        drawn(&[], &RunLabel::default());
    }

    #[test]
    fn smoothing_by_hand_keeps_the_ends_and_straight_lines() {
        let points = [1.0, 2.0, 6.0, 4.0, 5.0].map(|y| (y, y));
        let means: Vec<f64> = smoothed(&points, 3).iter().map(|(_, y)| *y).collect();
        assert_eq!(means, [1.0, 3.0, 4.0, 5.0, 5.0]);
        let line: Vec<(f64, f64)> = (0..9).map(|i| (f64::from(i), f64::from(i))).collect();
        assert_eq!(smoothed(&line, 5), line);
        assert_eq!(smoothed(&[], 1), []);
    }
}
