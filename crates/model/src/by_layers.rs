//! The gradients of an objective while keeping the activations of one layer at a time.
//!
//! The forward pass runs without autodiff and keeps the input of each layer: the trajectory, which is one
//! state per layer. The backward pass goes from the last layer to the first, recomputes each with autodiff,
//! and differentiates it (Chen et al., *Training Deep Nets with Sublinear Memory Cost*, arXiv 1604.06174). It
//! costs one more forward pass; the graph holds the evaluations of one layer at a time.

use burn::module::Module;
use burn::tensor::{Gradients, Int, Tensor};
use iiet_blocks::Block;
use iiet_kernels::backward_from;
use iiet_ode::{Memory, NetworkSolver, Trajectory};

use crate::{At, LanguageModel, Objective, Observer, Pass};

/// Keeps the input of each layer.
struct Starts<M>(Vec<Trajectory<Tensor<3>, M>>);

impl<M: Clone> Observer<M> for Starts<M> {
    fn before(&mut self, at: &Trajectory<Tensor<3>, M>) {
        self.0.push(at.clone());
    }
}

impl<B: Block, S: NetworkSolver> LanguageModel<B, S> {
    /// The sum of [`objective`](Self::objective). Its gradients are passed to the callback in parts, starting
    /// with the last layer; a parameter's gradient is the sum over the parts that contain it.
    ///
    /// For one-step methods the gradients are bitwise identical to those of one backward pass. If layers
    /// share something, such as the states of a history or PCformer's alpha, terms are added in another order
    /// and the last digit may differ.
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
        let (end, mut starts) = self.starts(ids.clone().inner());
        let y = leaf(end.y);
        let last = self.of_last(y.clone(), objective);
        let mut gradients = last.backward();
        let mut sum = last.inner();
        let mut dy = y.grad_remove(&mut gradients);
        collect(gradients);
        // To the states that later layers have read; no layer has read the last layer's.
        let mut d_memory: Vec<Option<Tensor<3>>> = vec![None; end.memory.states().len()];

        let mut pass = self.pass(&ids);
        while let Some(start) = starts.pop() {
            let (layer, y) = (start.layer, leaf(start.y));
            let memory = start.memory.map(&mut leaf);
            let read = memory.states();
            let before = Trajectory {
                y: y.clone(),
                layer,
                memory,
            };
            let after = self.walk(before, 1, &mut pass, &mut ());
            let of_layer = objective.of_layer(layer, &after.y);
            let terms = of_layer.into_iter().chain(std::mem::take(&mut pass.terms));
            let terms: Vec<_> = terms
                .map(|term| {
                    sum = sum.clone() + term.clone().inner();
                    let term = term.reshape([1, 1, 1]);
                    (term.clone(), Some(term.inner().ones_like()))
                })
                .collect();
            let outputs = [(after.y, dy.take())]
                .into_iter()
                .chain(terms)
                .chain(after.memory.states().into_iter().zip(d_memory));
            let known = outputs.filter_map(|(output, gradient)| Some((output, gradient?)));
            let mut gradients = backward_from(known);
            dy = y.grad_remove(&mut gradients);
            d_memory = read
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

    /// The result of the traversal and the input of each layer, without autodiff.
    fn starts(&self, ids: Tensor<2, Int>) -> (At<S>, Vec<At<S>>) {
        let plain = self.valid();
        let mut pass: Pass<'_, B> = plain.pass(&ids);
        let mut starts = Starts(Vec::with_capacity(self.sizes().n_layers));
        let end = plain.walk(
            plain.start(ids),
            self.sizes().n_layers,
            &mut pass,
            &mut starts,
        );
        (end, starts.0)
    }
}

/// A leaf tensor.
fn leaf(x: Tensor<3>) -> Tensor<3> {
    x.autodiff().require_grad()
}
