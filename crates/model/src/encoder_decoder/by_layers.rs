//! The gradients of an objective while keeping the activations of one layer at a time, on both sides.
//!
//! The decoder's layers are computed again from the last to the first, then the encoder's, as in a language model
//! ([`backward`]). Each layer of the decoder reads m, so the gradient to m is the sum of what the layers
//! pass to it, and it starts the encoder's backward pass.

use burn::module::Module;
use burn::tensor::{Gradients, Int, Tensor};
use iiet_blocks::{Dropout, normalise};
use iiet_kernels::backward_from;
use iiet_ode::{Layer, Solver};

use super::{EncoderDecoder, PLAIN, Source};
use crate::by_layers::{backward, leaf, starts};
use crate::{ModelError, Objective};

impl EncoderDecoder {
    /// The sum of [`objective`](Self::objective). Its gradients are passed to the callback in parts, starting
    /// with the decoder's last layer; a parameter's gradient is the sum over the parts that contain it.
    ///
    /// They equal those of one backward pass up to the order in which the gradients to m, to the embedding and to
    /// what layers share are added.
    ///
    /// # Shapes
    ///
    /// - source: `[batch, source]`
    /// - ids: `[batch, target]`, below `vocab_size`
    /// - output: `[1]`, without autodiff
    pub fn objective_by_layers<O: Objective + ?Sized>(
        &self,
        source: &Source,
        ids: Tensor<2, Int>,
        objective: &mut O,
        collect: impl FnMut(Gradients),
    ) -> Tensor<1> {
        self.objective_by_layers_with(source, ids, objective, None, collect)
            .expect(PLAIN)
    }

    /// [`objective_by_layers`](Self::objective_by_layers) with dropout on both sides, if there is one: a layer
    /// that is computed again has the same masks.
    ///
    /// # Shapes
    ///
    /// - source: `[batch, source]`
    /// - ids: `[batch, target]`, below `vocab_size`
    /// - output: `[1]`, without autodiff
    ///
    /// # Errors
    ///
    /// None for rates that [`Dropout::new`] accepts: both sides are passes over whole texts.
    pub fn objective_by_layers_with<O: Objective + ?Sized>(
        &self,
        source: &Source,
        ids: Tensor<2, Int>,
        objective: &mut O,
        dropout: Option<&Dropout>,
        mut collect: impl FnMut(Gradients),
    ) -> Result<Tensor<1>, ModelError> {
        let of_decoder = dropout.map(|dropout| dropout.of_decoder());
        let (encoder, decoder) = (&self.encoder, &self.decoder);

        // Forwards without autodiff.
        let plain = self.valid();
        let plain_source = source.inner();
        let plain_ids = ids.clone().inner();
        let mut pass = plain.encoder_pass(&plain_source).with_dropout(dropout)?;
        let y = pass.embedded(plain.embed(plain_source.ids.clone()));
        let start = plain.encoder.solver.start(y);
        let (layers, solver) = (&plain.encoder.layers, &plain.encoder.solver);
        let (encoded, encoder_starts) = starts(layers, solver, start, &mut pass);
        let memory = normalise(&plain.encoder.norm, encoded.y.clone());

        let pass = plain.decoder_pass(&plain_source, memory.clone(), &plain_ids);
        let mut pass = pass.with_dropout(of_decoder.as_ref())?;
        let y = pass.embedded(plain.embed(plain_ids));
        let start = plain.decoder.solver.start(y);
        let (layers, solver) = (&plain.decoder.layers, &plain.decoder.solver);
        let (decoded, decoder_starts) = starts(layers, solver, start, &mut pass);

        // Backwards through the decoder.
        let y = leaf(decoded.y);
        let hidden = normalise(&decoder.norm, y.clone());
        let last = objective.of_hidden(hidden, self.projection());
        let mut gradients = last.backward();
        let mut sum = last.inner();
        let from = (decoder_starts, y.grad_remove(&mut gradients));
        collect(gradients);
        let memory = leaf(memory);
        let mut d_memory: Option<Tensor<3>> = None;
        let pass = self.decoder_pass(source, memory.clone(), &ids);
        let mut pass = pass.with_dropout(of_decoder.as_ref())?;
        let mut of_layer = |layer: Layer, y: &Tensor<3>| objective.of_layer(layer, y);
        let mut keep_memory = |mut gradients: Gradients| {
            if let Some(of_one) = memory.grad_remove(&mut gradients) {
                d_memory = Some(match d_memory.take() {
                    Some(sum) => sum + of_one,
                    None => of_one,
                });
            }
            collect(gradients);
        };
        let (layers, solver) = (&decoder.layers, &decoder.solver);
        let of_targets = backward(
            layers,
            solver,
            from,
            &mut pass,
            &mut of_layer,
            &mut keep_memory,
        );
        if let Some(dy) = of_targets.dy {
            collect(backward_from([(pass.embedded(self.embed(ids)), dy)]));
        }

        // Backwards through the encoder.
        let y = leaf(encoded.y);
        let dy = d_memory.and_then(|d_memory| {
            let memory = normalise(&encoder.norm, y.clone());
            let mut gradients = backward_from([(memory, d_memory)]);
            let dy = y.grad_remove(&mut gradients);
            collect(gradients);
            dy
        });
        let mut pass = self.encoder_pass(source).with_dropout(dropout)?;
        let (layers, solver) = (&encoder.layers, &encoder.solver);
        let from = (encoder_starts, dy);
        let of_source = backward(
            layers,
            solver,
            from,
            &mut pass,
            &mut |_, _| None,
            &mut collect,
        );
        if let Some(dy) = of_source.dy {
            let y = pass.embedded(self.embed(source.ids.clone()));
            collect(backward_from([(y, dy)]));
        }

        for term in of_targets.terms.into_iter().chain(of_source.terms) {
            sum = sum + term;
        }
        Ok(sum)
    }
}
