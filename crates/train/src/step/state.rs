//! The state of training between two steps.

use burn::module::Module;
use iiet_model::LanguageModel;

use super::LossScale;
use super::copies::Copy;
use crate::optimizer::ModelOptimizer;

/// Parameters, moments and counts; bitwise identical copies on each device.
#[derive(Debug)]
pub struct TrainState {
    /// One per device; the first is used for validation, samples and checkpoints.
    pub(super) copies: Vec<Copy>,
    pub(crate) step: u64,
    pub(crate) tokens: u64,
    /// The loss scale of the next step, if the precision needs one.
    pub(crate) loss_scale: Option<LossScale>,
}

impl TrainState {
    /// Number of completed steps.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Number of tokens trained on.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The model with gradients tracked, on the first device.
    pub fn model(&self) -> &LanguageModel {
        &self.first().model
    }

    /// The model without autodiff, on the first device.
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
            .expect("invariant: there is at least one device")
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
