//! `loss.svg`: the training and validation loss against the step.

use std::collections::BTreeSet;
use std::path::Path;

use iiet_train::{CROSS_ENTROPY, Record};
use plotters::prelude::*;

use crate::{Drawn, PlotError, save};

const SIZE: (u32, u32) = (960, 540);
/// The height of the panel of a further term, or of the accuracy.
const TERM: u32 = 200;
const TRAINING: RGBColor = RGBColor(120, 160, 210);
const VALIDATION: RGBColor = RGBColor(200, 60, 40);
const OTHER: RGBColor = RGBColor(40, 140, 80);
const REFERENCE: RGBColor = RGBColor(110, 110, 110);

/// Draws the curves of a log.
///
/// `unigram` is the best loss without context, in nats per token. Values that are not finite are left
/// out.
///
/// # Errors
///
/// [`PlotError`] if the file cannot be drawn or written.
pub fn draw_curve(path: &Path, records: &[Record], unigram: f64) -> Result<(), PlotError> {
    save(path, |svg| render(svg, records, unigram))
}

fn render(svg: &mut String, records: &[Record], unigram: f64) -> Drawn {
    let curve = |of: &dyn Fn(&Record) -> Option<f64>| -> Vec<(f64, f64)> {
        let points = records.iter().map(|r| Some((r.step as f64, of(r)?)));
        // A point that is infinitely far away would make the axes endless.
        points.flatten().filter(|(_, y)| y.is_finite()).collect()
    };
    let last = records.last().map_or(1, |r| r.step.max(1)) as f64;
    // What validation measures too; a loss of several terms is not drawn, they are.
    let training = curve(&|r| Some(*r.terms.get(CROSS_ENTROPY).unwrap_or(&r.loss)));
    let losses = [
        Curve {
            points: training,
            ..Curve::new("training batch", TRAINING)
        },
        Curve {
            points: curve(&|r| r.validation_loss),
            marked: true,
            ..Curve::new("validation", VALIDATION)
        },
        Curve {
            points: match unigram.is_finite() {
                true => vec![(0.0, unigram), (last, unigram)],
                false => Vec::new(),
            },
            dashed: true,
            ..Curve::new("unigram entropy of the validation targets", REFERENCE)
        },
    ];
    let names: BTreeSet<&String> = records.iter().flat_map(|r| r.terms.keys()).collect();
    let mut others: Vec<Vec<Curve>> = names
        .into_iter()
        .filter(|name| *name != CROSS_ENTROPY)
        .map(|name| {
            let curve = Curve {
                points: curve(&|r| r.terms.get(name).copied()),
                ..Curve::new(&name.replace('_', " "), OTHER)
            };
            vec![curve]
        })
        .collect();
    let accuracy = [
        Curve {
            points: curve(&|r| r.accuracy),
            ..Curve::new("accuracy, training batch", TRAINING)
        },
        Curve {
            points: curve(&|r| r.validation_accuracy),
            marked: true,
            ..Curve::new("accuracy, validation", VALIDATION)
        },
    ];
    if accuracy.iter().any(|curve| !curve.points.is_empty()) {
        others.push(accuracy.into());
    }

    let (width, height) = SIZE;
    let size = (width, height + TERM * others.len() as u32);
    let area = SVGBackend::with_string(svg, size).into_drawing_area();
    area.fill(&WHITE)?;
    let (upper, lower) = area.split_vertically(height);
    panel(&upper, "Loss, nats per token", &losses, last)?;
    if !others.is_empty() {
        let rows = lower.split_evenly((others.len(), 1));
        for (area, curves) in rows.iter().zip(&others) {
            panel(area, "", curves, last)?;
        }
    }
    area.present()?;
    Ok(())
}

/// One quantity against the step.
struct Curve {
    label: String,
    color: RGBColor,
    points: Vec<(f64, f64)>,
    /// Whether each point is to be seen.
    marked: bool,
    dashed: bool,
}

impl Curve {
    fn new(label: &str, color: RGBColor) -> Self {
        Self {
            label: label.to_owned(),
            color,
            points: Vec::new(),
            marked: false,
            dashed: false,
        }
    }
}

/// Draws curves that share a scale, over steps up to `last`.
fn panel(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    caption: &str,
    curves: &[Curve],
    last: f64,
) -> Drawn {
    let values = || curves.iter().flat_map(|c| &c.points).map(|(_, y)| *y);
    let highest = values().reduce(f64::max).unwrap_or(1.0);
    let lowest = values().reduce(f64::min).unwrap_or(0.0);
    let margin = (0.05 * (highest - lowest)).max(1e-3 * highest).max(1e-9);
    let digits = if highest - lowest < 1.0 { 3 } else { 1 };
    let mut builder = ChartBuilder::on(area);
    if !caption.is_empty() {
        builder.caption(caption, ("sans-serif", 20));
    }
    let mut chart = builder
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..last, (lowest - margin).max(0.0)..highest + margin)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("step")
        .x_label_formatter(&|step| format!("{step:.0}"))
        .y_label_formatter(&|loss| format!("{loss:.digits$}"))
        .draw()?;
    for curve in curves {
        let (points, color) = (curve.points.iter().copied(), curve.color);
        let drawn = match (curve.dashed, curve.marked) {
            (true, _) => {
                chart.draw_series(DashedLineSeries::new(points, 6, 4, color.stroke_width(1)))?
            }
            (_, true) => {
                let line = LineSeries::new(points, color.stroke_width(2));
                chart.draw_series(line.point_size(2))?
            }
            _ => chart.draw_series(LineSeries::new(points, color.stroke_width(1)))?,
        };
        drawn.label(&curve.label).legend(move |(x, y)| {
            PathElement::new(vec![(x, y), (x + 20, y)], color.stroke_width(2))
        });
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(REFERENCE)
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: u64, loss: f64) -> Record {
        Record {
            step,
            tokens: 0,
            loss,
            terms: Default::default(),
            accuracy: None,
            bits_per_byte: Some(0.0),
            lr: 0.0,
            grad_norm: 0.0,
            tokens_per_second: 0.0,
            flops_utilisation: None,
            evaluations: 1,
            validation_loss: (step == 10).then_some(loss),
            validation_accuracy: None,
            validation_bits_per_byte: None,
            validation_by_source: Default::default(),
        }
    }

    #[test]
    fn draws_both_curves() {
        let mut svg = String::new();
        render(&mut svg, &[record(1, 8.0), record(10, 5.0)], 6.5).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for text in ["validation", "training batch", "unigram entropy"] {
            assert!(svg.contains(text), "{text}");
        }
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
        let mut svg = String::new();
        render(&mut svg, &[with_terms(1), with_terms(2)], 6.5).unwrap();
        assert!(svg.contains("divergence") && !svg.contains("cross entropy"));
        // The axes end near the terms and the unigram entropy.
        assert!(svg.contains("6.0") && svg.contains("0.500") && !svg.contains("1000000"));
    }

    #[test]
    fn draws_the_accuracy_where_there_is_one() {
        let of_task = |step| Record {
            accuracy: Some(0.25),
            validation_accuracy: (step == 10).then_some(0.5),
            ..record(step, 1.5)
        };
        let mut svg = String::new();
        render(&mut svg, &[of_task(1), of_task(10)], 1.79).unwrap();
        assert!(svg.contains("accuracy, training batch") && svg.contains("accuracy, validation"));
        let mut svg = String::new();
        render(&mut svg, &[record(1, 1.5)], 1.79).unwrap();
        assert!(!svg.contains("accuracy"));
    }

    #[test]
    fn leaves_out_values_that_are_not_finite() {
        for value in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            let records = [record(1, 8.0), record(10, value), record(20, 5.0)];
            let mut svg = String::new();
            render(&mut svg, &records, value).unwrap();
            assert!(svg.len() < 20_000, "{}", svg.len());
        }
    }

    #[test]
    fn draws_an_empty_log() {
        render(&mut String::new(), &[], 6.5).unwrap();
    }
}
