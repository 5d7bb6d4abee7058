//! One update.
//!
//! `accumulation` micro-batches, each summing its losses; the gradient of the sum divided by the
//! number of tokens that were really there, clipped by its global norm; one step of AdamW.

use std::collections::BTreeMap;

use iiet_data::statistics;
use iiet_model::LanguageModel;

use super::Trainer;
use crate::evaluate::batch_tensors;
use crate::gradients::AccumulatedGradients;
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

impl Trainer<'_> {
    pub(super) fn take_step(&mut self) -> Result<Step, TrainError> {
        let train = &self.config.train;
        let mut gradients = AccumulatedGradients::default();
        let (mut nats, mut tokens, mut bytes) = (0.0, 0, 0.0);
        let mut terms: BTreeMap<&str, f64> = BTreeMap::new();
        for micro in 0..train.accumulation as u64 {
            let batch = self
                .batches
                .get(self.step * train.accumulation as u64 + micro)?;
            bytes += self.text.of(&batch);
            let batch = batch_tensors(&batch, self.device);
            tokens += batch.tokens;
            let mut objective = self.objective.of_batch(&batch);
            nats += gradients.add_loss(&self.model, batch.ids, &mut *objective, train.recompute);
            for (name, nats) in objective.terms() {
                *terms.entry(name).or_default() += nats;
            }
        }
        let step = self.step + 1;
        let loss = nats / tokens as f64;
        let grad_norm = gradients.norm() / tokens as f64;
        for (what, value) in [("loss", loss), ("gradient norm", grad_norm)] {
            if !value.is_finite() {
                return Err(self.non_finite(step, what, value));
            }
        }
        let clip = match train.clip {
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
            .step(model, gradients, clip / tokens as f64, lr);
        self.step = step;
        self.tokens += tokens;
        let terms: BTreeMap<String, f64> = terms
            .into_iter()
            .map(|(name, nats)| (name.to_owned(), nats / tokens as f64))
            .collect();
        let cross_entropy = *terms.get(CROSS_ENTROPY).unwrap_or(&loss);
        let bits_per_byte = statistics::bits_per_byte(cross_entropy, tokens, bytes);
        Ok(Step {
            loss,
            terms,
            bits_per_byte,
            lr,
            grad_norm,
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
