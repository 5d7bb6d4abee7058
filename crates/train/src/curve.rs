//! `loss.svg`: the training and validation loss against the step.

use std::collections::BTreeSet;
use std::path::Path;

use plotters::prelude::*;

use crate::{CROSS_ENTROPY, Record, TrainError};

const SIZE: (u32, u32) = (960, 540);
const TRAINING: RGBColor = RGBColor(120, 160, 210);
const VALIDATION: RGBColor = RGBColor(200, 60, 40);
/// Of further terms of the loss.
const OTHERS: [RGBColor; 2] = [RGBColor(40, 140, 80), RGBColor(150, 90, 170)];
const REFERENCE: RGBColor = RGBColor(110, 110, 110);

/// Draws the curves of a log; `unigram` is the best loss without context, in nats per token.
pub(crate) fn draw(path: &Path, records: &[Record], unigram: f64) -> Result<(), TrainError> {
    let mut svg = String::new();
    render(&mut svg, records, unigram).map_err(|error| TrainError::Curve {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    std::fs::write(path, svg).map_err(TrainError::io(path))
}

type DrawResult = Result<(), Box<dyn std::error::Error>>;

fn render(svg: &mut String, records: &[Record], unigram: f64) -> DrawResult {
    let term = |name: &str| -> Vec<(f64, f64)> {
        let known = |r: &Record| Some((r.step as f64, *r.terms.get(name)?));
        records.iter().filter_map(known).collect()
    };
    // What validation measures too; a loss of several terms is not drawn, they are.
    let cross_entropy = |r: &Record| *r.terms.get(CROSS_ENTROPY).unwrap_or(&r.loss);
    let training: Vec<(f64, f64)> = records
        .iter()
        .map(|r| (r.step as f64, cross_entropy(r)))
        .collect();
    let names: BTreeSet<&String> = records.iter().flat_map(|r| r.terms.keys()).collect();
    let others: Vec<(&String, Vec<(f64, f64)>)> = names
        .into_iter()
        .filter(|name| *name != CROSS_ENTROPY)
        .map(|name| (name, term(name)))
        .collect();
    let validation: Vec<(f64, f64)> = records
        .iter()
        .filter_map(|r| Some((r.step as f64, r.validation_loss?)))
        .collect();
    let drawn = || others.iter().flat_map(|(_, curve)| curve);
    let losses = || {
        training
            .iter()
            .chain(&validation)
            .chain(drawn())
            .map(|(_, loss)| *loss)
    };
    let highest = losses().fold(unigram, f64::max);
    let lowest = losses().fold(unigram, f64::min);
    let margin = 0.05 * (highest - lowest).max(0.1);
    let last = training.last().map_or(1.0, |(step, _)| *step).max(1.0);

    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Loss, nats per token", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..last, (lowest - margin).max(0.0)..highest + margin)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("step")
        .x_label_formatter(&|step| format!("{step:.0}"))
        .y_label_formatter(&|loss| format!("{loss:.1}"))
        .draw()?;
    let legend = |color: RGBColor| {
        move |(x, y)| PathElement::new(vec![(x, y), (x + 20, y)], color.stroke_width(2))
    };
    chart
        .draw_series(LineSeries::new(training, TRAINING.stroke_width(1)))?
        .label("training batch")
        .legend(legend(TRAINING));
    for ((name, curve), color) in others.iter().zip(OTHERS.into_iter().cycle()) {
        chart
            .draw_series(LineSeries::new(curve.clone(), color.stroke_width(1)))?
            .label(name.replace('_', " "))
            .legend(legend(color));
    }
    chart
        .draw_series(LineSeries::new(validation, VALIDATION.stroke_width(2)).point_size(2))?
        .label("validation")
        .legend(legend(VALIDATION));
    chart
        .draw_series(DashedLineSeries::new(
            [(0.0, unigram), (last, unigram)],
            6,
            4,
            REFERENCE.stroke_width(1),
        ))?
        .label("unigram entropy of the validation text")
        .legend(legend(REFERENCE));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(REFERENCE)
        .draw()?;
    area.present()?;
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
            bits_per_byte: 0.0,
            lr: 0.0,
            grad_norm: 0.0,
            tokens_per_second: 0.0,
            flops_utilisation: None,
            evaluations: 1,
            validation_loss: (step == 10).then_some(loss),
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
        // The axis ends near the terms and the unigram entropy.
        assert!(svg.contains("6.0") && !svg.contains("1000000"));
    }

    #[test]
    fn draws_an_empty_log() {
        render(&mut String::new(), &[], 6.5).unwrap();
    }
}
