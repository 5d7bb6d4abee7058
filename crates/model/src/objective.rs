//! Training objectives: a term of the last hidden states and optionally one of each layer's output.

use burn::tensor::{Int, Tensor};
use iiet_blocks::{Block, Dropout, normalise};
use iiet_kernels::linear_cross_entropy;
use iiet_ode::{Layer, NetworkSolver};

use crate::{LanguageModel, ModelError, Observer, Pass};

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
        let pass = self.pass(&ids);
        self.objective_in(pass, ids, objective)
    }

    /// [`objective`](Self::objective) in a pass with dropout, if there is one.
    ///
    /// # Shapes
    ///
    /// - ids: `[batch, seq]`, below `vocab_size`
    /// - output: `[1]`
    ///
    /// # Errors
    ///
    /// [`ModelError::Block`] if the block has no dropout and a rate is not zero.
    pub fn objective_with<O: Objective + ?Sized>(
        &self,
        ids: Tensor<2, Int>,
        objective: &mut O,
        dropout: Option<&Dropout>,
    ) -> Result<Tensor<1>, ModelError> {
        let pass = self.pass(&ids).with_dropout(dropout)?;
        Ok(self.objective_in(pass, ids, objective))
    }

    fn objective_in<O: Objective + ?Sized>(
        &self,
        mut pass: Pass<'_, B>,
        ids: Tensor<2, Int>,
        objective: &mut O,
    ) -> Tensor<1> {
        let start = self.start_in(ids, &pass);
        let mut terms = Terms::new(&mut *objective);
        let at = self.walk(start, self.sizes().n_layers, &mut pass, &mut terms);
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
