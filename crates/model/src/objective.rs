//! What training minimises: a term of the last hidden states and, if wanted, one of each layer's
//! output.

use burn::tensor::{Int, Tensor};
use iiet_blocks::normalise;
use iiet_kernels::linear_cross_entropy;
use iiet_ode::Trajectory;

use crate::LanguageModel;

/// A loss of one batch, as a sum of terms.
///
/// The model hands over its states where they arise, so that an objective needs neither the full
/// logits nor the states of all layers at once.
pub trait Objective {
    /// The term of the normalised hidden states, before their projection on the vocabulary.
    ///
    /// # Shapes
    ///
    /// - hidden: `[batch, seq, d_model]`
    /// - projection: `[d_model, vocab]`
    /// - output: `[1]`
    fn of_hidden(&mut self, hidden: Tensor<3>, projection: Tensor<2>) -> Tensor<1>;

    /// The term of the output `y_{n+1}` of layer n, counted from 0; by default there is none.
    ///
    /// # Shapes
    ///
    /// - y: `[batch, seq, d_model]`
    /// - output: `[1]`
    fn of_layer(&mut self, n: usize, y: &Tensor<3>) -> Option<Tensor<1>> {
        let _ = (n, y);
        None
    }
}

/// `sum_t weights[t] * -log p(targets[t])`, in nats.
///
/// A sum, so that micro-batches can be added and divided by their number of real tokens.
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

impl LanguageModel {
    /// The sum of an objective's terms.
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
        let positions = self.positions(&ids);
        let mut at = Trajectory::start(self.embed(ids));
        let mut sum: Option<Tensor<1>> = None;
        for n in 0..self.model.layers.len() {
            at = self.layer(n, at, &positions);
            if let Some(term) = objective.of_layer(n, &at.y) {
                sum = Some(sum.map_or(term.clone(), |sum| sum + term));
            }
        }
        let last = self.of_last(at.y, objective);
        sum.map_or(last.clone(), |sum| sum + last)
    }

    /// The term of the hidden states, given the last layer's output.
    pub(crate) fn of_last<O: Objective + ?Sized>(
        &self,
        y: Tensor<3>,
        objective: &mut O,
    ) -> Tensor<1> {
        objective.of_hidden(normalise(&self.model.norm, y), self.projection())
    }

    /// The usual objective, [`CrossEntropy`].
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
