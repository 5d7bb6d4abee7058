//! The gradients of an objective while keeping the activations of one layer at a time.
//!
//! The forward pass runs without autodiff and keeps the input of each layer: the trajectory, which is one
//! state per layer. The backward pass goes from the last layer to the first, recomputes each with autodiff,
//! and differentiates it (Chen et al., *Training Deep Nets with Sublinear Memory Cost*, arXiv 1604.06174). It
//! costs one more forward pass; the graph holds the evaluations of one layer at a time.

use burn::module::Module;
use burn::tensor::{Gradients, Int, Tensor};
use iiet_blocks::{Block, Dropout};
use iiet_kernels::backward_from;
use iiet_ode::{Layer, Memory, NetworkSolver, Trajectory};

use crate::walk::advance;
use crate::{At, LanguageModel, ModelError, Objective, Observer, Pass};

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
        collect: impl FnMut(Gradients),
    ) -> Tensor<1> {
        let plain = self.valid();
        let passes = [plain.pass(&ids.clone().inner()), self.pass(&ids)];
        self.by_layers_in(passes, ids, objective, collect)
    }

    /// [`objective_by_layers`](Self::objective_by_layers) in a pass with dropout, if there is one: a layer that
    /// is computed again has the same masks.
    ///
    /// # Shapes
    ///
    /// - ids: `[batch, seq]`, below `vocab_size`
    /// - output: `[1]`, without autodiff
    ///
    /// # Errors
    ///
    /// [`ModelError::Block`] if the block has no dropout and a rate is not zero.
    pub fn objective_by_layers_with<O: Objective + ?Sized>(
        &self,
        ids: Tensor<2, Int>,
        objective: &mut O,
        dropout: Option<&Dropout>,
        collect: impl FnMut(Gradients),
    ) -> Result<Tensor<1>, ModelError> {
        let plain = self.valid();
        let passes = [
            plain.pass(&ids.clone().inner()).with_dropout(dropout)?,
            self.pass(&ids).with_dropout(dropout)?,
        ];
        Ok(self.by_layers_in(passes, ids, objective, collect))
    }

    /// In a pass without autodiff, and one with it.
    fn by_layers_in<O: Objective + ?Sized>(
        &self,
        [mut plain, mut pass]: [Pass<'_, B>; 2],
        ids: Tensor<2, Int>,
        objective: &mut O,
        mut collect: impl FnMut(Gradients),
    ) -> Tensor<1> {
        let valid = self.valid();
        let start = valid.start_in(ids.clone().inner(), &plain);
        let (end, starts) = starts(&valid.model.layers, &valid.model.solver, start, &mut plain);
        let y = leaf(end.y);
        let last = self.of_last(y.clone(), objective);
        let mut gradients = last.backward();
        let mut sum = last.inner();
        let dy = y.grad_remove(&mut gradients);
        collect(gradients);

        let (layers, solver) = (&self.model.layers, &self.model.solver);
        let mut of_layer = |layer: Layer, y: &Tensor<3>| objective.of_layer(layer, y);
        let from = (starts, dy);
        let backward = backward(layers, solver, from, &mut pass, &mut of_layer, &mut collect);
        for term in backward.terms {
            sum = sum + term;
        }
        if let Some(dy) = backward.dy {
            let y = pass.embedded(self.embed(ids));
            collect(backward_from([(y, dy)]));
        }
        sum
    }
}

/// The result of a traversal of all layers and the input of each.
pub(crate) fn starts<B: Block, S: NetworkSolver>(
    layers: &[B],
    solver: &S,
    start: At<S>,
    pass: &mut Pass<'_, B>,
) -> (At<S>, Vec<At<S>>) {
    let mut starts = Starts(Vec::with_capacity(layers.len()));
    let end = advance(layers, solver, start, layers.len(), pass, &mut starts);
    (end, starts.0)
}

/// Keeps the input of each layer.
struct Starts<M>(Vec<Trajectory<Tensor<3>, M>>);

impl<M: Clone> Observer<M> for Starts<M> {
    fn before(&mut self, at: &Trajectory<Tensor<3>, M>) {
        self.0.push(at.clone());
    }
}

/// What the backward pass through a stack of layers gives.
pub(crate) struct Backward {
    /// The gradient to `y_0`, if there is one.
    pub(crate) dy: Option<Tensor<3>>,
    /// Terms of the layers, without autodiff, from the last layer on.
    pub(crate) terms: Vec<Tensor<1>>,
}

/// The backward pass through layers that are computed again: from their inputs, and the gradient to the last
/// one's output if there is one.
pub(crate) fn backward<B: Block, S: NetworkSolver>(
    layers: &[B],
    solver: &S,
    (mut starts, mut dy): (Vec<At<S>>, Option<Tensor<3>>),
    pass: &mut Pass<'_, B>,
    term_of: &mut dyn FnMut(Layer, &Tensor<3>) -> Option<Tensor<1>>,
    collect: &mut dyn FnMut(Gradients),
) -> Backward {
    let mut sums = Vec::new();
    // To the states that later layers have read; no layer has read the last layer's.
    let mut d_memory: Vec<Option<Tensor<3>>> = Vec::new();
    while let Some(start) = starts.pop() {
        let (layer, y) = (start.layer, leaf(start.y));
        let memory = start.memory.map(&mut leaf);
        let read = memory.states();
        let before = Trajectory {
            y: y.clone(),
            layer,
            memory,
        };
        let after = advance(layers, solver, before, 1, pass, &mut ());
        let of_layer = term_of(layer, &after.y);
        let terms = of_layer.into_iter().chain(std::mem::take(&mut pass.terms));
        let terms: Vec<_> = terms
            .map(|term| {
                sums.push(term.clone().inner());
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
    Backward { dy, terms: sums }
}

/// A leaf tensor.
pub(crate) fn leaf(x: Tensor<3>) -> Tensor<3> {
    x.autodiff().require_grad()
}
