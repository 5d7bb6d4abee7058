//! One update.
//!
//! `accumulation` micro-batches, each summing its losses; the gradient of the sum divided by the
//! number of tokens that were really there, clipped by its global norm; one step of AdamW. In half
//! precision the gradients are those of a rounded copy, applied to the f32 weights.

use std::collections::BTreeMap;

use iiet_data::{Batch, statistics};

use super::Trainer;
use super::replicas::{Losses, Passes};
use crate::gradients::AccumulatedGradients;
use crate::loss_scale::LossScale;
use crate::{CROSS_ENTROPY, TrainError};

/// The result of one update.
pub(super) struct Step {
    /// What is minimised, a token.
    pub(super) loss: f64,
    /// Its terms, if it has several.
    pub(super) terms: BTreeMap<String, f64>,
    pub(super) bits_per_byte: f64,
    pub(super) lr: f64,
    pub(super) grad_norm: f64,
}

/// Sums over the micro-batches of a step.
struct Sums {
    /// The same on every device.
    gradients: Vec<AccumulatedGradients>,
    /// Of the gradients.
    norm: f64,
    losses: Losses,
    /// Of text.
    bytes: f64,
}

impl Trainer<'_> {
    pub(super) fn take_step(&mut self) -> Result<Step, TrainError> {
        let step = self.step + 1;
        let sums = loop {
            let sums = self.sums()?;
            let [loss, norm] = [("loss", sums.losses.nats), ("gradient norm", sums.norm)];
            match [loss, norm]
                .into_iter()
                .find(|(_, value)| !value.is_finite())
            {
                None => break sums,
                Some(_) if self.loss_scale.as_mut().is_some_and(LossScale::retreat) => {}
                Some((what, value)) => return Err(self.non_finite(step, what, value)),
            }
        };
        if let Some(scale) = &mut self.loss_scale {
            scale.held();
        }
        let Losses {
            nats,
            terms,
            tokens,
        } = sums.losses;
        let of_token = |sum: f64| sum / tokens as f64;
        let (loss, grad_norm) = (of_token(nats), of_token(sums.norm));
        let clip = match self.config.train.clip {
            0.0 => 1.0,
            limit => (limit / grad_norm).min(1.0),
        };
        let lr = self.schedule.at(step);
        self.replicas.update(sums.gradients, of_token(clip), lr)?;
        self.step = step;
        self.tokens += tokens;
        let terms: BTreeMap<String, f64> = terms
            .into_iter()
            .map(|(name, sum)| (name.to_owned(), of_token(sum)))
            .collect();
        let cross_entropy = *terms.get(CROSS_ENTROPY).unwrap_or(&loss);
        let bits_per_byte = statistics::bits_per_byte(cross_entropy, tokens, sums.bytes);
        Ok(Step {
            loss,
            terms,
            bits_per_byte,
            lr,
            grad_norm,
        })
    }

    /// The next step's losses and their gradients.
    fn sums(&mut self) -> Result<Sums, TrainError> {
        let train = &self.config.train;
        let accumulation = train.accumulation as u64;
        let indices = self.step * accumulation..(self.step + 1) * accumulation;
        let batches: Vec<Batch> = indices
            .map(|index| self.batches.get(index))
            .collect::<Result<_, _>>()?;
        let bytes = batches.iter().map(|batch| self.text.of(batch)).sum();
        let passes = Passes {
            precision: train.precision,
            recompute: train.recompute,
            scale: self.loss_scale.map_or(1.0, |scale| scale.scale),
        };
        let (losses, gradients) = self.replicas.gradients(batches, passes);
        Ok(Sums {
            // They are the same on every device.
            norm: gradients.first().map_or(0.0, AccumulatedGradients::norm),
            gradients,
            losses,
            bytes,
        })
    }

    fn non_finite(&self, step: u64, what: &'static str, value: f64) -> TrainError {
        TrainError::NonFinite {
            step,
            what,
            value,
            checkpoint: self.last_checkpoint(),
        }
    }
}
