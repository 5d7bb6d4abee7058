//! The state of training between two steps.

use iiet_model::LanguageModel;

use super::LossScale;
use super::copies::Copy;
use crate::TrainedModel;
use crate::optimizer::ModelOptimizer;

/// Parameters, moments and counts; bitwise identical copies on each device.
#[derive(Debug)]
pub struct TrainState<M = LanguageModel> {
    /// One per device; the first is used for validation, samples and checkpoints.
    pub(super) copies: Vec<Copy<M>>,
    pub(crate) step: u64,
    pub(crate) tokens: u64,
    /// The loss scale of the next step, if the precision needs one.
    pub(crate) loss_scale: Option<LossScale>,
}

impl<M: TrainedModel> TrainState<M> {
    /// Number of completed steps.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Number of tokens trained on.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The model with gradients tracked, on the first device.
    pub fn model(&self) -> &M {
        &self.first().model
    }

    /// The model without autodiff, on the first device.
    pub fn valid(&self) -> M {
        self.model().valid()
    }

    /// The optimizer of the first device.
    pub(crate) fn optimizer(&self) -> &ModelOptimizer {
        &self.first().optimizer
    }

    fn first(&self) -> &Copy<M> {
        self.copies
            .first()
            .expect("invariant: there is at least one device")
    }

    /// The state with other parameters.
    #[cfg(test)]
    pub(crate) fn with_model(mut self, with: impl Fn(M) -> M) -> Self {
        for copy in &mut self.copies {
            copy.model = with(copy.model.clone());
        }
        self
    }

    /// Model and optimizer of each device.
    #[cfg(test)]
    pub(crate) fn all(&self) -> impl Iterator<Item = (&M, &ModelOptimizer)> {
        self.copies
            .iter()
            .map(|copy| (&copy.model, &copy.optimizer))
    }
}
