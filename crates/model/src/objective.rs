//! Training objectives: a term of the last hidden states and optionally one of each layer's output.

use burn::tensor::{Int, Tensor};
use iiet_blocks::{Block, normalise};
use iiet_kernels::linear_cross_entropy;
use iiet_ode::{Layer, NetworkSolver};

use crate::{LanguageModel, Observer};

/// The loss of one batch, as a sum of terms.
///
/// The model passes its states as they are computed, so that an objective needs neither the full
/// logits nor the states of all layers at once.
pub trait Objective {
    /// The term of the normalised hidden states, before the output projection.
    ///
    /// # Shapes
    ///
    /// - hidden: `[batch, seq, d_model]`
    /// - projection: `[d_model, vocab]`
    /// - output: `[1]`
    fn of_hidden(&mut self, hidden: Tensor<3>, projection: Tensor<2>) -> Tensor<1>;

    /// The term of a layer's output `y_n`; none by default.
    ///
    /// # Shapes
    ///
    /// - y: `[batch, seq, d_model]`
    /// - output: `[1]`
    fn of_layer(&mut self, layer: Layer, y: &Tensor<3>) -> Option<Tensor<1>> {
        let _ = (layer, y);
        None
    }
}

/// `sum_t weights[t] * -log p(targets[t])`, in nats.
///
/// A sum, so that micro-batches can be added and divided by the number of non-padding tokens.
#[derive(Debug, Clone)]
pub struct CrossEntropy {
    /// `[batch, seq]`, ids below `vocab_size`
    pub targets: Tensor<2, Int>,
    /// `[batch, seq]`, 0 for padding
    pub weights: Tensor<2>,
}

impl Objective for CrossEntropy {
    fn of_hidden(&mut self, hidden: Tensor<3>, projection: Tensor<2>) -> Tensor<1> {
        let [batch, seq, d_model] = hidden.dims();
        linear_cross_entropy(
            hidden.reshape([batch * seq, d_model]),
            projection,
            self.targets.clone().reshape([batch * seq]),
            self.weights.clone().reshape([batch * seq]),
        )
    }
}

/// Accumulates the terms of the layers during the traversal.
pub(crate) struct Terms<'a, O: ?Sized> {
    objective: &'a mut O,
    pub(crate) sum: Option<Tensor<1>>,
}

impl<'a, O: ?Sized> Terms<'a, O> {
    pub(crate) fn new(objective: &'a mut O) -> Self {
        Self {
            objective,
            sum: None,
        }
    }
}

impl<M, O: Objective + ?Sized> Observer<M> for Terms<'_, O> {
    fn after(&mut self, layer: Layer, y: &Tensor<3>) {
        if let Some(term) = self.objective.of_layer(layer, y) {
            self.sum = Some(plus(self.sum.take(), term));
        }
    }
}

pub(crate) fn plus(sum: Option<Tensor<1>>, term: Tensor<1>) -> Tensor<1> {
    match sum {
        Some(sum) => sum + term,
        None => term,
    }
}

impl<B: Block, S: NetworkSolver> LanguageModel<B, S> {
    /// The sum of an objective's terms and of those that blocks add.
    ///
    /// # Shapes
    ///
    /// - ids: `[batch, seq]`, below `vocab_size`
    /// - output: `[1]`
    pub fn objective<O: Objective + ?Sized>(
        &self,
        ids: Tensor<2, Int>,
        objective: &mut O,
    ) -> Tensor<1> {
        let mut pass = self.pass(&ids);
        let mut terms = Terms::new(&mut *objective);
        let at = self.walk(
            self.start(ids),
            self.sizes().n_layers,
            &mut pass,
            &mut terms,
        );
        let sum = pass
            .terms
            .into_iter()
            .fold(terms.sum, |sum, term| Some(plus(sum, term)));
        plus(sum, self.of_last(at.y, objective))
    }

    /// The term of the hidden states, given the last layer's output.
    pub(crate) fn of_last<O: Objective + ?Sized>(
        &self,
        y: Tensor<3>,
        objective: &mut O,
    ) -> Tensor<1> {
        objective.of_hidden(normalise(&self.model.norm, y), self.projection())
    }

    /// The standard objective, [`CrossEntropy`].
    ///
    /// # Shapes
    ///
    /// - ids and targets: `[batch, seq]`, ids below `vocab_size`
    /// - weights: `[batch, seq]`, 0 for padding
    /// - output: `[1]`, a sum in nats
    pub fn loss(
        &self,
        ids: Tensor<2, Int>,
        targets: Tensor<2, Int>,
        weights: Tensor<2>,
    ) -> Tensor<1> {
        self.objective(ids, &mut CrossEntropy { targets, weights })
    }
}
