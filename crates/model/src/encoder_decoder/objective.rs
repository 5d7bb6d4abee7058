//! Passes through both sides: training objectives, whose terms are of the decoder's states, and observers of
//! the layers.

use burn::tensor::{Int, Tensor};
use iiet_blocks::Dropout;
use iiet_ode::{AnySolver, Solver};

use super::{EncoderDecoder, PLAIN, Source};
use crate::objective::{Terms, plus};
use crate::{ModelError, Objective, Observer, SmoothedCrossEntropy};

/// What the solver of a side remembers.
type Remembered = <AnySolver as Solver<Tensor<3>>>::Memory;

/// The normalised states of a side, and the terms that its blocks added.
type Passed = (Tensor<3>, Vec<Tensor<1>>);

impl EncoderDecoder {
    /// The sum of an objective's terms and of those that blocks add. The layers that the objective is given
    /// are the decoder's.
    ///
    /// # Shapes
    ///
    /// - source: `[batch, source]`
    /// - ids: `[batch, target]`, below `vocab_size`
    /// - output: `[1]`
    pub fn objective<O: Objective + ?Sized>(
        &self,
        source: &Source,
        ids: Tensor<2, Int>,
        objective: &mut O,
    ) -> Tensor<1> {
        self.objective_with(source, ids, objective, None)
            .expect(PLAIN)
    }

    /// [`objective`](Self::objective) with dropout on both sides, if there is one.
    ///
    /// # Shapes
    ///
    /// - source: `[batch, source]`
    /// - ids: `[batch, target]`, below `vocab_size`
    /// - output: `[1]`
    ///
    /// # Errors
    ///
    /// None for rates that [`Dropout::new`] accepts: both sides are passes over whole texts.
    pub fn objective_with<O: Objective + ?Sized>(
        &self,
        source: &Source,
        ids: Tensor<2, Int>,
        objective: &mut O,
        dropout: Option<&Dropout>,
    ) -> Result<Tensor<1>, ModelError> {
        let (states, of_encoder) = self.through_encoder(source, dropout, &mut ())?;
        let mut terms = Terms::new(&mut *objective);
        let of_target = (states, ids);
        let (hidden, of_decoder) = self.through_decoder(source, of_target, dropout, &mut terms)?;
        let of_blocks = of_encoder.into_iter().chain(of_decoder);
        let sum = of_blocks.fold(terms.sum, |sum, term| Some(plus(sum, term)));
        Ok(plus(sum, objective.of_hidden(hidden, self.projection())))
    }

    /// `sum_t weights[t] * loss_t` in nats, with the configuration's label smoothing.
    ///
    /// # Shapes
    ///
    /// - source: `[batch, source]`
    /// - ids and targets: `[batch, target]`, below `vocab_size`
    /// - weights: `[batch, target]`, 0 for padding
    /// - output: `[1]`
    pub fn loss(
        &self,
        source: &Source,
        ids: Tensor<2, Int>,
        targets: Tensor<2, Int>,
        weights: Tensor<2>,
    ) -> Tensor<1> {
        let smoothing = self.sizes.label_smoothing;
        let mut objective = SmoothedCrossEntropy::new(targets, weights, smoothing);
        self.objective(source, ids, &mut objective)
    }

    /// A pass whose layers are observed on both sides.
    ///
    /// # Shapes
    ///
    /// - source: `[batch, source]`
    /// - ids: `[batch, target]`, below `vocab_size`
    pub fn watch(
        &self,
        source: &Source,
        ids: Tensor<2, Int>,
        of_encoder: &mut impl Observer<Remembered>,
        of_decoder: &mut impl Observer<Remembered>,
    ) {
        let encoded = self.through_encoder(source, None, of_encoder);
        let (states, _) = encoded.expect(PLAIN);
        let decoded = self.through_decoder(source, (states, ids), None, of_decoder);
        decoded.expect(PLAIN);
    }

    pub(super) fn through_encoder(
        &self,
        source: &Source,
        dropout: Option<&Dropout>,
        observer: &mut impl Observer<Remembered>,
    ) -> Result<Passed, ModelError> {
        let mut pass = self.encoder_pass(source).with_dropout(dropout)?;
        let y = pass.embedded(self.embed(source.ids.clone()));
        Ok((self.encoder.observed(y, &mut pass, observer), pass.terms))
    }

    pub(super) fn through_decoder(
        &self,
        source: &Source,
        (states, ids): (Tensor<3>, Tensor<2, Int>),
        dropout: Option<&Dropout>,
        observer: &mut impl Observer<Remembered>,
    ) -> Result<Passed, ModelError> {
        let dropout = dropout.map(|dropout| dropout.of_decoder());
        let pass = self.decoder_pass(source, states, &ids);
        let mut pass = pass.with_dropout(dropout.as_ref())?;
        let y = pass.embedded(self.embed(ids));
        Ok((self.decoder.observed(y, &mut pass, observer), pass.terms))
    }
}
