//! Calibration: what the projections of a layer multiply, on some texts.
//!
//! Layer after layer, the texts pass through the layer as it is, while the second moments of every projection's
//! inputs are added up over all evaluations; then its matrices are replaced; then the texts pass through the new
//! layer, to be what the next one is calibrated on. So later layers compensate for what earlier ones have lost
//! (Frantar et al., *GPTQ*, arXiv 2210.17323, section 3).

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Int, Tensor};
use iiet_blocks::{Block, InputObserver, Projection, normalise};
use iiet_compress::{CompressError, Hessian};
use iiet_ode::{Layer, NetworkSolver, Solver};

use super::of_matrix;
use crate::checkpoint::values_of;
use crate::projections::HEAD;
use crate::stack::Stack;
use crate::walk::{At, advance};
use crate::{Backbone, EncoderDecoder, LanguageModel, ModelError, Pass, Source};

/// What changes a projection, given its name in checkpoints and the second moments of its inputs.
pub(super) trait Change:
    FnMut(&str, &mut Projection, &Hessian) -> Result<(), ModelError>
{
}

impl<F: FnMut(&str, &mut Projection, &Hessian) -> Result<(), ModelError>> Change for F {}

impl<B: Block, S: NetworkSolver> LanguageModel<B, S> {
    /// Changes each projection of the layers, and then an output projection that is not the embedding. `progress` is
    /// called with the number of completed layers and their total.
    ///
    /// # Shapes
    ///
    /// - texts: `[batch, seq]` each, without padding, ids below `vocab_size`
    pub(super) fn calibrated(
        &mut self,
        texts: &[Tensor<2, Int>],
        mut change: impl Change,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<(), ModelError> {
        let depth = self.sizes().n_layers;
        let starts = texts.iter().map(|ids| Text {
            context: self.pass(ids).context,
            at: self.start(ids.clone()),
        });
        let starts = starts.collect();
        let Backbone { layers, solver, .. } = &mut self.model;
        let of_layer = |layer| progress(layer, depth);
        let states = through("model", layers, solver, starts, &mut change, of_layer)?;
        progress(depth, depth);
        if self.lm_head.is_none() {
            return Ok(());
        }
        let mut hessian = Hessian::new(self.sizes().d_model).map_err(of_matrix(HEAD))?;
        for y in states {
            let hidden = normalise(&self.model.norm, y);
            hessian.add(&values_of(&hidden)).map_err(of_matrix(HEAD))?;
        }
        match &mut self.lm_head {
            Some(head) => change(HEAD, head, &hessian),
            None => Ok(()),
        }
    }
}

impl EncoderDecoder {
    /// Changes each projection of the encoder's layers, and then of the decoder's, which read what the changed encoder
    /// makes of the sources. `progress` is called with the number of completed layers and their total.
    ///
    /// # Shapes
    ///
    /// - pairs: sources and targets, `[batch, target]` each, both without padding, ids below `vocab_size`
    pub(super) fn calibrated(
        &mut self,
        pairs: &[(Source, Tensor<2, Int>)],
        mut change: impl Change,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<(), ModelError> {
        let of_encoder = self.encoder.layers.len();
        let all = of_encoder + self.decoder.layers.len();
        let starts = pairs.iter().map(|(source, _)| Text {
            context: self.encoder_pass(source).context,
            at: self.encoder.solver.start(self.embed(source.ids().clone())),
        });
        let starts = starts.collect();
        let Stack {
            layers,
            solver,
            norm,
        } = &mut self.encoder;
        let of_layer = |layer| progress(layer, all);
        let states = through(
            "model.encoder",
            layers,
            solver,
            starts,
            &mut change,
            of_layer,
        )?;
        let memories: Vec<_> = states.into_iter().map(|y| normalise(norm, y)).collect();
        let starts = pairs
            .iter()
            .zip(memories)
            .map(|((source, ids), memory)| Text {
                context: self.decoder_pass(source, memory, ids).context,
                at: self.decoder.solver.start(self.embed(ids.clone())),
            });
        let starts = starts.collect();
        let Stack { layers, solver, .. } = &mut self.decoder;
        let of_layer = |layer| progress(of_encoder + layer, all);
        through(
            "model.decoder",
            layers,
            solver,
            starts,
            &mut change,
            of_layer,
        )?;
        progress(all, all);
        Ok(())
    }
}

/// A text on its way through the layers of a stack.
struct Text<B: Block, S: NetworkSolver> {
    context: B::Context,
    at: At<S>,
}

/// Changes the projections of each layer of a stack in turn, and returns the states after the last. `progress` is called
/// with the index of a layer before it.
fn through<B: Block, S: NetworkSolver>(
    stack: &str,
    layers: &mut [B],
    solver: &S,
    mut texts: Vec<Text<B, S>>,
    change: &mut impl Change,
    mut progress: impl FnMut(usize),
) -> Result<Vec<Tensor<3>>, ModelError> {
    let advanced = |layers: &[B], text: &Text<B, S>| {
        let mut pass = Pass::over(text.context.clone());
        advance(layers, solver, text.at.clone(), 1, &mut pass, &mut ())
    };
    for layer in Layer::all(layers.len()).map(Layer::index) {
        progress(layer);
        let name = |of_block: &str| format!("{stack}.layers.{layer}.{of_block}");
        let mut meters = Vec::new();
        for (of_block, projection) in layers[layer].projections_mut() {
            let [d_in, _] = projection.widths();
            let meter = Meter::new(d_in).map_err(of_matrix(&name(&of_block)))?;
            projection.observe(meter.observer());
            meters.push(meter);
        }
        for text in &texts {
            advanced(layers, text);
        }
        let projections = layers[layer].projections_mut();
        for ((of_block, projection), meter) in projections.into_iter().zip(meters) {
            projection.stop_observing();
            let name = name(&of_block);
            let hessian = meter.finish().map_err(of_matrix(&name))?;
            change(&name, projection, &hessian)?;
        }
        for text in &mut texts {
            text.at = advanced(layers, text);
        }
    }
    Ok(texts.into_iter().map(|text| text.at.y).collect())
}

/// Adds up the second moments of a projection's inputs.
struct Meter {
    seen: Arc<Mutex<Result<Hessian, CompressError>>>,
}

impl Meter {
    fn new(d_in: usize) -> Result<Self, CompressError> {
        let seen = Arc::new(Mutex::new(Ok(Hessian::new(d_in)?)));
        Ok(Self { seen })
    }

    fn observer(&self) -> InputObserver {
        let seen = self.seen.clone();
        InputObserver::new(move |x: &Tensor<3>| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if let Ok(hessian) = seen.as_mut()
                && let Err(error) = hessian.add(&values_of(x))
            {
                *seen = Err(error);
            }
        })
    }

    /// After the observer was dropped.
    fn finish(self) -> Result<Hessian, CompressError> {
        let seen = Arc::into_inner(self.seen).expect("invariant: no observer is left");
        seen.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
