//! The gradients of an objective without the activations of more than one layer.
//!
//! The forward pass runs without autodiff and keeps what each layer starts from: the trajectory, that
//! is one state a layer. The backward pass goes from the last layer to the first, runs each again,
//! now recorded, and differentiates it (Chen et al., *Training Deep Nets with Sublinear Memory Cost*,
//! arXiv 1604.06174). It costs one more forward pass; what the graph holds at a time are the
//! evaluations of one layer.

use burn::module::Module;
use burn::tensor::{Gradients, Int, Tensor};
use iiet_kernels::backward_from;
use iiet_ode::Trajectory;

use crate::{LanguageModel, Objective};

impl LanguageModel {
    /// The sum of [`objective`](Self::objective), whose gradients are handed out in parts, the last
    /// layer's first; a parameter's gradient is the sum over the parts that have one.
    ///
    /// The gradients are those of one backward pass: to the last bit for one-step methods. Where
    /// layers share something, as a history shares its states and PCformer its alpha, their terms
    /// are added in another order and the last digit may differ.
    ///
    /// # Shapes
    ///
    /// - ids: `[batch, seq]`, below `vocab_size`
    /// - output: `[1]`, without autodiff
    pub fn objective_by_layers<O: Objective + ?Sized>(
        &self,
        ids: Tensor<2, Int>,
        objective: &mut O,
        mut collect: impl FnMut(Gradients),
    ) -> Tensor<1> {
        let positions = self.positions(&ids);
        let (mut at, mut starts) = {
            let plain = self.valid();
            let plain_positions = plain.positions(&ids.clone().inner());
            let mut at = Trajectory::start(plain.embed(ids.clone().inner()));
            let mut starts = Vec::with_capacity(self.model.layers.len());
            for n in 0..self.model.layers.len() {
                starts.push(at.clone());
                at = plain.layer(n, at, &plain_positions);
            }
            (at, starts)
        };

        let y = leaf(at.y);
        let last = self.of_last(y.clone(), objective);
        let mut gradients = last.backward();
        let mut sum = last.inner();
        let mut dy = y.grad_remove(&mut gradients);
        collect(gradients);
        // To the states s_0, s_1, .. that later layers have read; none has read the last.
        let mut d_history: Vec<Option<Tensor<3>>> = vec![None; at.history.len()];
        at.history.clear();

        for n in (0..self.model.layers.len()).rev() {
            let start = starts.pop().expect("invariant: one for each layer");
            let y = leaf(start.y);
            let history: Vec<_> = start.history.into_iter().map(leaf).collect();
            let before = Trajectory {
                y: y.clone(),
                n: start.n,
                history: history.clone(),
            };
            let after = self.layer(n, before, &positions);
            let term = objective.of_layer(n, &after.y).map(|term| {
                sum = sum.clone() + term.clone().inner();
                let term = term.reshape([1, 1, 1]);
                (term.clone(), Some(term.inner().ones_like()))
            });
            let outputs = [(after.y, dy.take())]
                .into_iter()
                .chain(term)
                .chain(after.history.into_iter().zip(d_history));
            let known = outputs.filter_map(|(output, gradient)| Some((output, gradient?)));
            let mut gradients = backward_from(known);
            dy = y.grad_remove(&mut gradients);
            d_history = history
                .into_iter()
                .map(|state| state.grad_remove(&mut gradients))
                .collect();
            collect(gradients);
        }

        if let Some(dy) = dy {
            collect(backward_from([(self.embed(ids), dy)]));
        }
        sum
    }
}

/// A tensor to differentiate by.
fn leaf(x: Tensor<3>) -> Tensor<3> {
    x.autodiff().require_grad()
}
