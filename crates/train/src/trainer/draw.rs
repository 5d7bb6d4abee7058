//! The batches of a run's steps, and their updates.

use std::sync::{Mutex, PoisonError};

use iiet_data::{Batch, DataError, TrainingBatches, statistics};

use super::Trainer;
use crate::evaluate::TextBytes;
use crate::step::{MicroBatches, NotTaken, StepError};
use crate::{CROSS_ENTROPY, Figures, TrainError, TrainedModel};

/// The micro-batches of one step, which are a function of its number.
struct Drawn<'a> {
    batches: &'a TrainingBatches,
    text: &'a TextBytes,
    /// The index of the first micro-batch.
    first: u64,
    /// The text bytes of each micro-batch, once loaded.
    bytes: Mutex<Vec<f64>>,
    count: usize,
}

impl MicroBatches for Drawn<'_> {
    fn count(&self) -> usize {
        self.count
    }

    fn get(&self, at: usize) -> Result<Batch, DataError> {
        let batch = self.batches.get(self.first + at as u64)?;
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes[at] = self.text.of(&batch);
        Ok(batch)
    }
}

impl<M: TrainedModel> Trainer<'_, M> {
    /// Computes the next step. Also returns the cross-entropy in bits per byte, if the targets are
    /// text.
    pub(super) fn take_step(&mut self) -> Result<(Figures, Option<f64>), TrainError> {
        let count = self.config.train.accumulation;
        let state = self.take_state();
        let drawn = Drawn {
            batches: &self.batches,
            text: &self.text,
            first: state.step() * count as u64,
            bytes: Mutex::new(vec![0.0; count]),
            count,
        };
        let step = state.step() + 1;
        match self.stepper.step(state, &drawn) {
            Ok((state, figures)) => {
                let bytes = drawn.bytes.into_inner();
                let bytes: f64 = bytes.unwrap_or_else(PoisonError::into_inner).iter().sum();
                let bytes = match self.ranks.size() {
                    1 => bytes,
                    _ => self.ranks.sums(&[bytes])?[0],
                };
                self.state = Some(state);
                let cross_entropy = *figures.terms.get(CROSS_ENTROPY).unwrap_or(&figures.loss);
                let bits_per_byte = (bytes > 0.0)
                    .then(|| statistics::bits_per_byte(cross_entropy, figures.tokens, bytes));
                Ok((figures, bits_per_byte))
            }
            Err(not_taken) => {
                let NotTaken { state, reason } = *not_taken;
                self.state = Some(*state);
                Err(match reason {
                    StepError::NonFinite { what, value } => TrainError::NonFinite {
                        step,
                        what,
                        value,
                        checkpoint: self.last_checkpoint(),
                    },
                    StepError::Data(source) => self.data_lost(source),
                    StepError::Ranks(error) => error.into(),
                    StepError::NoTargets => TrainError::NoTargets {
                        step,
                        checkpoint: self.last_checkpoint(),
                    },
                })
            }
        }
    }
}
