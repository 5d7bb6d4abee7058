//! Passes through both sides: training objectives, whose terms are of the decoder's states, and observers of
//! the layers.

use burn::tensor::{Int, Tensor};
use iiet_blocks::{Block, LlamaBlock, Memory, Tokens, Visibility};
use iiet_ode::{AnySolver, Solver};

use super::{EncoderDecoder, Source};
use crate::objective::{Terms, plus};
use crate::{Objective, Observer, Pass, SmoothedCrossEntropy};

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
        let (states, of_encoder) = self.through_encoder(source, &mut ());
        let mut terms = Terms::new(&mut *objective);
        let (hidden, of_decoder) = self.through_decoder(source, states, ids, &mut terms);
        let of_blocks = of_encoder.into_iter().chain(of_decoder);
        let sum = of_blocks.fold(terms.sum, |sum, term| Some(plus(sum, term)));
        plus(sum, objective.of_hidden(hidden, self.projection()))
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
        let (states, _) = self.through_encoder(source, of_encoder);
        self.through_decoder(source, states, ids, of_decoder);
    }

    fn through_encoder(&self, source: &Source, observer: &mut impl Observer<Remembered>) -> Passed {
        let [_, seq] = source.ids.dims();
        let lengths = source.lengths.clone();
        let tokens = Tokens::Source { lengths, seq };
        let (config, device) = (&self.sizes, source.ids.device());
        let context = LlamaBlock::context(&config.block, config.d_model, tokens, &device);
        let mut pass = Pass::over(context);
        let y = self.embed(source.ids.clone());
        (self.encoder.observed(y, &mut pass, observer), pass.terms)
    }

    fn through_decoder(
        &self,
        source: &Source,
        states: Tensor<3>,
        ids: Tensor<2, Int>,
        observer: &mut impl Observer<Remembered>,
    ) -> Passed {
        let [_, seq] = ids.dims();
        let memory = Memory::States {
            states,
            visible: Visibility::keys(source.lengths.as_slice()),
        };
        let context = self.context(Tokens::Whole { seq }, memory, &ids.device());
        let mut pass = Pass::over(context);
        let y = self.embed(ids);
        (self.decoder.observed(y, &mut pass, observer), pass.terms)
    }
}
