//! One update.
//!
//! `accumulation` micro-batches, each summing its losses; the gradient of the sum divided by the
//! number of tokens that were really there, clipped by its global norm; one step of AdamW. In half
//! precision the gradients are those of a rounded copy, applied to the f32 weights.

use std::collections::BTreeMap;

use iiet_data::statistics;
use iiet_model::LanguageModel;

use super::Trainer;
use crate::evaluate::batch_tensors;
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
    gradients: AccumulatedGradients,
    /// Of the gradients.
    norm: f64,
    /// What is minimised.
    loss: f64,
    terms: BTreeMap<&'static str, f64>,
    /// Predicted, without padding.
    tokens: u64,
    /// Of text.
    bytes: f64,
}

impl Trainer<'_> {
    pub(super) fn take_step(&mut self) -> Result<Step, TrainError> {
        let step = self.step + 1;
        let sums = loop {
            let sums = self.sums()?;
            let [loss, norm] = [("loss", sums.loss), ("gradient norm", sums.norm)];
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
        let of_token = |sum: f64| sum / sums.tokens as f64;
        let (loss, grad_norm) = (of_token(sums.loss), of_token(sums.norm));
        let clip = match self.config.train.clip {
            0.0 => 1.0,
            limit => (limit / grad_norm).min(1.0),
        };
        let lr = self.schedule.at(step);
        // The optimizer takes the model apart and updates it in place: a clone left here would make
        // it copy every parameter. Nothing can fail before the model is whole again.
        let hollow = LanguageModel::empty(self.model.config(), self.device)?;
        let model = std::mem::replace(&mut self.model, hollow);
        self.model = self
            .optimizer
            .step(model, sums.gradients, of_token(clip), lr);
        self.step = step;
        self.tokens += sums.tokens;
        let terms: BTreeMap<String, f64> = sums
            .terms
            .into_iter()
            .map(|(name, sum)| (name.to_owned(), of_token(sum)))
            .collect();
        let cross_entropy = *terms.get(CROSS_ENTROPY).unwrap_or(&loss);
        let bits_per_byte = statistics::bits_per_byte(cross_entropy, sums.tokens, sums.bytes);
        Ok(Step {
            loss,
            terms,
            bits_per_byte,
            lr,
            grad_norm,
        })
    }

    /// The next step's losses and their gradients.
    fn sums(&self) -> Result<Sums, TrainError> {
        let train = &self.config.train;
        let scale = self.loss_scale.map_or(1.0, |scale| scale.scale);
        // In f32 these are the parameters themselves.
        let model = self.model.clone().in_precision(train.precision);
        let mut gradients = AccumulatedGradients::default();
        let (mut loss, mut tokens, mut bytes) = (0.0, 0, 0.0);
        let mut terms: BTreeMap<&'static str, f64> = BTreeMap::new();
        for micro in 0..train.accumulation as u64 {
            let batch = self
                .batches
                .get(self.step * train.accumulation as u64 + micro)?;
            bytes += self.text.of(&batch);
            let batch = batch_tensors(&batch, self.device).scaled(scale);
            tokens += batch.tokens;
            let mut objective = self.objective.of_batch(&batch);
            loss += gradients.add_loss(&model, batch.ids, &mut *objective, train.recompute);
            for (name, nats) in objective.terms() {
                *terms.entry(name).or_default() += nats;
            }
        }
        gradients.divide_by(scale);
        terms.values_mut().for_each(|sum| *sum /= scale);
        Ok(Sums {
            norm: gradients.norm(),
            gradients,
            loss: loss / scale,
            terms,
            tokens,
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
