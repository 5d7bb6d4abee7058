//! What a training consists of between two steps.

use burn::module::Module;
use iiet_model::LanguageModel;

use super::LossScale;
use super::copies::Copy;
use crate::optimizer::ModelOptimizer;

/// Parameters, moments and counts; on several devices a copy on each, equal to the last bit.
#[derive(Debug)]
pub struct TrainState {
    /// One a device; the first is validated, sampled and written to checkpoints.
    pub(super) copies: Vec<Copy>,
    pub(crate) step: u64,
    pub(crate) tokens: u64,
    /// Of the next step, where the precision needs one.
    pub(crate) loss_scale: Option<LossScale>,
}

impl TrainState {
    /// Steps taken.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Tokens trained on.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The model with its gradients tracked, on the first device.
    pub fn model(&self) -> &LanguageModel {
        &self.first().model
    }

    /// The model free of autodiff, on the first device.
    pub fn valid(&self) -> LanguageModel {
        self.model().valid()
    }

    /// The optimizer of the first device.
    pub(crate) fn optimizer(&self) -> &ModelOptimizer {
        &self.first().optimizer
    }

    fn first(&self) -> &Copy {
        self.copies
            .first()
            .expect("invariant: there is a first device")
    }

    /// The state with other parameters.
    #[cfg(test)]
    pub(crate) fn with_model(mut self, with: impl Fn(LanguageModel) -> LanguageModel) -> Self {
        for copy in &mut self.copies {
            copy.model = with(copy.model.clone());
        }
        self
    }

    /// Model and optimizer of each device.
    #[cfg(test)]
    pub(crate) fn all(&self) -> impl Iterator<Item = (&LanguageModel, &ModelOptimizer)> {
        self.copies
            .iter()
            .map(|copy| (&copy.model, &copy.optimizer))
    }
}
