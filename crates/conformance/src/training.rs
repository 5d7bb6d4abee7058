//! The losses of the first 30 steps of `configs/tiny.toml`, with its batch size and clipping, against
//! PyTorch's.
//!
//! The text is synthetic, so that no corpus is needed: tokens of uneven frequency, a quarter of them copies
//! of the previous token. `golden/training.py` trains the same model on it and writes the losses.

use burn::tensor::Device;
use iiet_data::Batch;
use iiet_model::{LanguageModel, Precision};
use iiet_train::{Devices, ModelOptimizer, NextToken, RunConfig, Stepper, TrainSection};

use crate::finding::{difference, largest};
use crate::{ConformanceError, Finding};

const STEPS: u64 = 30;
/// The number of steps that are repeated.
const REPEATED: usize = 3;

/// The output of `golden/training.py`.
const OF_PYTORCH: &str = include_str!("../golden/training.json");

pub(crate) fn check(device: &Device) -> Result<Vec<Finding>, ConformanceError> {
    let expected: Vec<f32> =
        serde_json::from_str(OF_PYTORCH).expect("invariant: a list of numbers, tested below");
    let finding = |what, deviation, tolerance| Finding {
        case: "tiny".into(),
        what,
        deviation,
        tolerance,
    };
    let mut findings = Vec::new();
    for (precision, what, tolerance) in [
        (Precision::F32, "losses of 30 steps, relative", 1e-4),
        (Precision::F16, "losses of 30 steps in f16, relative", 2e-4),
        (
            Precision::Bf16,
            "losses of 30 steps in bf16, relative",
            1e-3,
        ),
    ] {
        if !precision.works_on(device) {
            continue;
        }
        let losses = losses(STEPS, precision, device)?;
        let shares = losses
            .iter()
            .zip(&expected)
            .map(|(found, expected)| f64::from((found - expected).abs() / expected));
        findings.push(finding(what, largest(shares), tolerance));
        if precision == Precision::F32 {
            let again = self::losses(REPEATED as u64, precision, device)?;
            let differ = difference(&again, &losses[..REPEATED]);
            findings.push(finding("losses of 3 steps taken twice", differ, 0.0));
        }
    }
    Ok(findings)
}

pub(crate) fn tiny_config() -> RunConfig {
    let text = include_str!("../golden/training.toml");
    toml::from_str(text).expect("invariant: the configuration is valid, tested below")
}

/// The model of `configs/tiny.toml` with initial weights from its RNG seed.
///
/// # Errors
///
/// [`ConformanceError::Model`]
pub fn tiny_model(device: &Device) -> Result<LanguageModel, ConformanceError> {
    let config = tiny_config();
    let model = config.model.config(config.data.vocab_size, None);
    Ok(LanguageModel::init(&model, config.train.seed, device)?)
}

/// Mean nats per token of each of the first steps, with passes in the given precision.
fn losses(steps: u64, precision: Precision, device: &Device) -> Result<Vec<f32>, ConformanceError> {
    let config = tiny_config();
    let train = TrainSection {
        precision,
        ..config.train
    };
    let (batch, seq) = (train.batch, config.model.seq_len);
    let devices = Devices::one(device.clone());
    let mut stepper = Stepper::new(&NextToken, &train, &devices);
    let mut state = stepper.start(&tiny_model(device)?, ModelOptimizer::new(&train));
    let mut losses = Vec::new();
    let text = text(steps as usize * batch * (seq + 1));
    for windows in text.chunks(batch * (seq + 1)) {
        let rows = windows.chunks(seq + 1);
        let batches = [Batch {
            inputs: rows.clone().flat_map(|row| &row[..seq]).copied().collect(),
            targets: rows.flat_map(|row| &row[1..]).copied().collect(),
            weights: vec![1.0; batch * seq],
            batch,
            seq,
            source: None,
        }];
        let (next, figures) = stepper
            .step(state, batches.as_slice())
            .map_err(|not_taken| ConformanceError::Step(not_taken.reason))?;
        state = next;
        losses.push(figures.loss as f32);
    }
    Ok(losses)
}

/// Token ids below 4096. The arithmetic is that of `golden/training.py`.
fn text(tokens: usize) -> Vec<u32> {
    let mut text = Vec::with_capacity(tokens);
    for i in 0..tokens as u32 {
        let u = (i + 1).wrapping_mul(2_654_435_761);
        let u = (u ^ (u >> 15)).wrapping_mul(2_246_822_519);
        let u = u ^ (u >> 13);
        text.push(match (text.last(), u & 3) {
            (Some(before), 0) => *before,
            _ => ((u >> 20) & 63) * ((u >> 10) & 63),
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_files_can_be_parsed() {
        let losses: Vec<f32> = serde_json::from_str(OF_PYTORCH).unwrap();
        assert_eq!(losses.len() as u64, STEPS);
        assert!(losses[29] < losses[0] - 0.5, "{losses:?}");
        let config = tiny_config();
        config.validate().unwrap();
        assert!(config.data.vocab_size > 63 * 63);
    }

    #[test]
    fn the_text_equals_the_scripts() {
        let text = text(1000);
        assert_eq!(text[..8], [646, 646, 2961, 2961, 2444, 1932, 767, 216]);
        assert_eq!(text.iter().sum::<u32>(), 985_907);
    }
}
