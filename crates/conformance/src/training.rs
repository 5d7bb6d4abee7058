//! The first 30 steps of `configs/tiny.toml`, batch, clipping and all, have PyTorch's losses.
//!
//! The text is made up, so that no corpus is needed: tokens of uneven frequency, a quarter of them
//! copies of the one before. `golden/training.py` trains the same model on it and writes the losses.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use iiet_model::LanguageModel;
use iiet_train::{AccumulatedGradients, LearningRate, ModelAdamW, RunConfig};

use crate::finding::{difference, largest, values};
use crate::golden::on_device;
use crate::{ConformanceError, Finding};

const STEPS: u64 = 30;
/// Of the steps, those taken a second time.
const REPEATED: usize = 3;

/// What `golden/training.py` has written.
const OF_PYTORCH: &str = include_str!("../golden/training.json");

pub(crate) fn check(device: &Device) -> Result<Vec<Finding>, ConformanceError> {
    let expected: Vec<f32> =
        serde_json::from_str(OF_PYTORCH).expect("invariant: a list of numbers, tested below");
    let losses = losses(STEPS, device)?;
    let shares = losses
        .iter()
        .zip(&expected)
        .map(|(found, expected)| f64::from((found - expected).abs() / expected));
    let again = self::losses(REPEATED as u64, device)?;
    Ok(vec![
        Finding {
            case: "tiny".into(),
            what: "losses of 30 steps, relative",
            deviation: largest(shares),
            tolerance: 1e-4,
        },
        Finding {
            case: "tiny".into(),
            what: "losses of 3 steps taken twice",
            deviation: difference(&again, &losses[..REPEATED]),
            tolerance: 0.0,
        },
    ])
}

pub(crate) fn tiny_config() -> RunConfig {
    let text = include_str!("../../../configs/tiny.toml");
    toml::from_str(text).expect("invariant: the configuration is read, tested below")
}

/// The model of `configs/tiny.toml` with its first weights, which are drawn from its seed.
///
/// # Errors
///
/// [`ConformanceError::Model`]
pub fn tiny_model(device: &Device) -> Result<LanguageModel, ConformanceError> {
    let config = tiny_config();
    let model = config.model.config(config.data.vocab_size, None);
    Ok(LanguageModel::init(&model, config.train.seed, device)?)
}

/// Mean nats a token in each of the first steps.
fn losses(steps: u64, device: &Device) -> Result<Vec<f32>, ConformanceError> {
    let config = tiny_config();
    let (batch, seq) = (config.train.batch, config.model.seq_len);
    let schedule = LearningRate::new(&config.train);
    let mut optimizer = ModelAdamW::new(&config.train);
    let mut model = tiny_model(device)?.train();
    let mut losses = Vec::new();
    let text = text(steps as usize * batch * (seq + 1));
    for (step, windows) in (1..).zip(text.chunks(batch * (seq + 1))) {
        let rows = windows.chunks(seq + 1);
        let inputs: Vec<Vec<u32>> = rows.clone().map(|row| row[..seq].to_vec()).collect();
        let targets: Vec<Vec<u32>> = rows.map(|row| row[1..].to_vec()).collect();
        let weights = Tensor::ones([batch, seq], device);
        let sum = model.loss(
            on_device(&inputs, device),
            on_device(&targets, device),
            weights,
        );
        let mut gradients = AccumulatedGradients::default();
        gradients.add(&model, sum.backward());
        let tokens = (batch * seq) as f64;
        let clip = (config.train.clip / (gradients.norm() / tokens)).min(1.0);
        model = optimizer.step(model, gradients, clip / tokens, schedule.at(step));
        let sum = values("the loss", sum.inner())?;
        losses.push((f64::from(sum[0]) / tokens) as f32);
    }
    Ok(losses)
}

/// So many tokens, below 4096. The arithmetic is that of `golden/training.py`.
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
    fn what_is_kept_can_be_read() {
        let losses: Vec<f32> = serde_json::from_str(OF_PYTORCH).unwrap();
        assert_eq!(losses.len() as u64, STEPS);
        assert!(losses[29] < losses[0] - 0.5, "{losses:?}");
        let config = tiny_config();
        config.validate().unwrap();
        assert!(config.data.vocab_size > 63 * 63);
    }

    #[test]
    fn the_text_is_that_of_the_script() {
        let text = text(1000);
        assert_eq!(text[..8], [646, 646, 2961, 2961, 2444, 1932, 767, 216]);
        assert_eq!(text.iter().sum::<u32>(), 985_907);
    }
}
