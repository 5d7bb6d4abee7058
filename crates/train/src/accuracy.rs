//! Accuracy: how many targets are the most likely token.
//!
//! ```text
//! right = sum over places of weight above 0 of [ argmax logits = target ]
//! ```
//!
//! The first of several equally likely tokens counts. The logits are computed beside the loss, which
//! never holds all of them; a task's vocabulary is small.

use burn::tensor::{Int, Tensor};
use iiet_kernels::{in_f32, linear};
use iiet_model::Objective;
use iiet_ode::Layer;

use crate::BatchTensors;

/// An objective, and the count of right targets beside it.
pub(crate) struct Counting<'a> {
    objective: &'a mut dyn Objective,
    targets: Tensor<2, Int>,
    weights: Tensor<2>,
    right: Option<Tensor<1, Int>>,
}

impl<'a> Counting<'a> {
    pub(crate) fn new(objective: &'a mut dyn Objective, batch: &BatchTensors) -> Self {
        Self {
            objective,
            targets: batch.targets.clone(),
            weights: batch.weights.clone(),
            right: None,
        }
    }

    /// How many targets were right, once the loss has been computed.
    pub(crate) fn right(self) -> u64 {
        let right = self.right.map(|right| right.into_scalar::<i64>());
        right.map_or(0, |right| right as u64)
    }
}

impl Objective for Counting<'_> {
    fn of_hidden(&mut self, hidden: Tensor<3>, projection: Tensor<2>) -> Tensor<1> {
        let [batch, seq, _] = hidden.dims();
        // Not a part of the loss, so without gradients.
        let logits = in_f32(linear(hidden.clone().detach(), projection.clone().detach()));
        let likely = logits.argmax(2).reshape([batch, seq]);
        let counts = self.weights.clone().greater_elem(0.0);
        let right = likely.equal(self.targets.clone()).bool_and(counts);
        self.right = Some(right.int().sum());
        self.objective.of_hidden(hidden, projection)
    }

    fn of_layer(&mut self, layer: Layer, y: &Tensor<3>) -> Option<Tensor<1>> {
        self.objective.of_layer(layer, y)
    }
}
