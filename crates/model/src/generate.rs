//! Sampling text from a model, by full passes over a sliding window.
//!
//! Every new token costs a pass over the whole window. That is enough for the short samples that
//! a training run shows.

use burn::tensor::{Device, Int, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::LanguageModel;

/// How the next token is chosen from the logits.
#[derive(Debug, Clone)]
pub struct Sampler {
    temperature: f32,
    random: ChaCha8Rng,
}

impl Sampler {
    /// Draws from `softmax(logits / temperature)`; temperature 0 takes the most likely token, the
    /// first of equals.
    pub fn new(temperature: f32, seed: u64) -> Self {
        let random = ChaCha8Rng::seed_from_u64(seed);
        Self {
            temperature,
            random,
        }
    }

    /// The index chosen. Non-finite logits are never chosen unless there are no others.
    pub fn choose(&mut self, logits: &[f32]) -> usize {
        let finite = |x: f32| if x.is_finite() { x } else { f32::NEG_INFINITY };
        let (best, highest) =
            logits
                .iter()
                .enumerate()
                .fold((0, f32::NEG_INFINITY), |best, (i, x)| {
                    if finite(*x) > best.1 { (i, *x) } else { best }
                });
        if self.temperature <= 0.0 || highest == f32::NEG_INFINITY {
            return best;
        }
        let weight = |x: f32| f64::from((finite(x) - highest) / self.temperature).exp();
        let total: f64 = logits.iter().map(|x| weight(*x)).sum();
        // 53 random bits make a number in [0, 1).
        let uniform = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut left = uniform * total;
        for (i, x) in logits.iter().enumerate() {
            left -= weight(*x);
            if left < 0.0 {
                return i;
            }
        }
        best
    }
}

/// Up to `max_tokens` ids that continue the prompt; ends before `eos`.
///
/// Only the last `seq_len` tokens of the model's configuration are seen.
///
/// # Panics
///
/// If the prompt is empty.
pub fn generate(
    model: &LanguageModel,
    prompt: &[u32],
    max_tokens: usize,
    eos: Option<u32>,
    sampler: &mut Sampler,
    device: &Device,
) -> Vec<u32> {
    assert!(!prompt.is_empty(), "the prompt is empty");
    let context = model.config().seq_len;
    let mut ids = prompt.to_vec();
    for _ in 0..max_tokens {
        let window = &ids[ids.len().saturating_sub(context)..];
        let data: Vec<i64> = window.iter().map(|id| i64::from(*id)).collect();
        let data = TensorData::new::<i64, _>(data, [1, window.len()]);
        let hidden = model.hidden(Tensor::<2, Int>::from_data(data, device));
        let last = hidden.narrow(1, window.len() - 1, 1);
        let logits: Vec<f32> = model
            .logits(last)
            .try_into_vec_as::<f32>()
            .expect("invariant: float tensors can be read as f32");
        let next = sampler.choose(&logits) as u32;
        if Some(next) == eos {
            break;
        }
        ids.push(next);
    }
    ids.split_off(prompt.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temperature_zero_takes_the_first_best() {
        let mut sampler = Sampler::new(0.0, 1);
        assert_eq!(sampler.choose(&[0.0, 2.0, f32::NAN, 2.0]), 1);
        assert_eq!(sampler.choose(&[f32::NAN, f32::NAN]), 0);
    }

    #[test]
    fn draws_follow_the_softmax() {
        // Softmax of (0, ln 3) is (1/4, 3/4).
        let mut sampler = Sampler::new(1.0, 1);
        let n = 20_000;
        let ones: usize = (0..n).map(|_| sampler.choose(&[0.0, 3.0f32.ln()])).sum();
        let share = ones as f64 / n as f64;
        // Four standard deviations of the mean of n draws.
        assert!(
            (share - 0.75).abs() < 4.0 * (0.75f64 * 0.25 / n as f64).sqrt(),
            "{share}"
        );
    }
}
