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
use iiet_ode::{Layer, NetworkSolver};

use super::of_matrix;
use crate::checkpoint::values_of;
use crate::projections::HEAD;
use crate::{LanguageModel, ModelError};

impl<B: Block, S: NetworkSolver> LanguageModel<B, S> {
    /// Calls `change` with each projection of the layers, its name in checkpoints, and the second moments of its
    /// inputs; and then with an output projection that is not the embedding. `progress` is called with the
    /// number of completed layers and their total.
    ///
    /// # Shapes
    ///
    /// - texts: `[batch, seq]` each, without padding, ids below `vocab_size`
    pub(super) fn calibrated(
        &mut self,
        texts: &[Tensor<2, Int>],
        mut change: impl FnMut(&str, &mut Projection, &Hessian) -> Result<(), ModelError>,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<(), ModelError> {
        let depth = self.sizes().n_layers;
        let mut states: Vec<_> = texts.iter().map(|ids| self.start(ids.clone())).collect();
        for layer in Layer::all(depth).map(Layer::index) {
            progress(layer, depth);
            let name = |of_block: &str| format!("model.layers.{layer}.{of_block}");
            let mut meters = Vec::new();
            for (of_block, projection) in self.model.layers[layer].projections_mut() {
                let [d_in, _] = projection.widths();
                let meter = Meter::new(d_in).map_err(of_matrix(&name(&of_block)))?;
                projection.observe(meter.observer());
                meters.push(meter);
            }
            for (ids, at) in texts.iter().zip(&states) {
                self.walk(at.clone(), 1, &mut self.pass(ids), &mut ());
            }
            let projections = self.model.layers[layer].projections_mut();
            for ((of_block, projection), meter) in projections.into_iter().zip(meters) {
                projection.stop_observing();
                let name = name(&of_block);
                let hessian = meter.finish().map_err(of_matrix(&name))?;
                change(&name, projection, &hessian)?;
            }
            for (ids, at) in texts.iter().zip(&mut states) {
                *at = self.walk(at.clone(), 1, &mut self.pass(ids), &mut ());
            }
        }
        progress(depth, depth);
        if self.lm_head.is_none() {
            return Ok(());
        }
        let mut hessian = Hessian::new(self.sizes().d_model).map_err(of_matrix(HEAD))?;
        for at in states {
            let hidden = normalise(&self.model.norm, at.y);
            hessian.add(&values_of(&hidden)).map_err(of_matrix(HEAD))?;
        }
        match &mut self.lm_head {
            Some(head) => change(HEAD, head, &hessian),
            None => Ok(()),
        }
    }
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
