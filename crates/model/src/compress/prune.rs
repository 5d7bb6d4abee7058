//! Zeros in the matrices of the layers, by magnitude, Wanda or SparseGPT.

use burn::tensor::{Int, Tensor};
use iiet_blocks::{Block, Projection};
use iiet_compress::prune::{InputNorms, Pattern, SparseGpt, magnitude, wanda};
use iiet_compress::{CompressError, Hessian};
use iiet_ode::NetworkSolver;

use super::{of_matrix, rows_of, set_rows};
use crate::projections::{HEAD, Projections};
use crate::{EncoderDecoder, LanguageModel, ModelError, Source};

/// A method of pruning that is calibrated on texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PruneMethod {
    /// By `|w| |x|` within each output's row (Sun et al., *Wanda*, arXiv 2306.11695). Weights that stay are unchanged.
    Wanda,
    /// By what a weight's loss costs when the others compensate (Frantar and Alistarh, *SparseGPT*, arXiv
    /// 2301.00774).
    SparseGpt,
}

/// Sets the weights of the smallest magnitude in each projection of the layers to zero. The embedding and the output
/// projection stay as they are.
///
/// # Errors
///
/// [`ModelError::Compress`] with the matrix' name if the pattern does not fit it; for packed matrices.
pub fn prune_by_magnitude<M: Projections>(
    model: &mut M,
    pattern: Pattern,
) -> Result<(), ModelError> {
    for (name, projection) in model.projections_mut() {
        if name != HEAD {
            change(&name, projection, |rows, [d_out, d_in]| {
                magnitude(rows, d_out, d_in, pattern)
            })?;
        }
    }
    Ok(())
}

impl<B: Block, S: NetworkSolver> LanguageModel<B, S> {
    /// Sets weights of the layers' projections to zero, by what they do to the states of some texts.
    ///
    /// The inputs of every evaluation of a layer count. `progress` is called with the number of completed layers
    /// and their total.
    ///
    /// # Shapes
    ///
    /// - texts: `[batch, seq]` each, without padding, ids below `vocab_size`
    ///
    /// # Errors
    ///
    /// As for [`prune_by_magnitude`]; also for states that are not finite, and for too few texts.
    pub fn prune(
        &mut self,
        method: PruneMethod,
        pattern: Pattern,
        texts: &[Tensor<2, Int>],
        progress: impl FnMut(usize, usize),
    ) -> Result<(), ModelError> {
        let prune = by_inputs(method, pattern);
        self.calibrated(
            texts,
            |name, projection, hessian| match name {
                HEAD => Ok(()),
                _ => prune(name, projection, hessian),
            },
            progress,
        )
    }
}

impl EncoderDecoder {
    /// Sets weights of the projections of both sides' layers to zero, by what they do to the states of some pairs.
    ///
    /// The inputs of every evaluation of a layer count. `progress` is called with the number of completed layers
    /// and their total.
    ///
    /// # Shapes
    ///
    /// - pairs: sources and targets, `[batch, target]` each, both without padding, ids below `vocab_size`
    ///
    /// # Errors
    ///
    /// As for [`prune_by_magnitude`]; also for states that are not finite, and for too few pairs.
    pub fn prune(
        &mut self,
        method: PruneMethod,
        pattern: Pattern,
        pairs: &[(Source, Tensor<2, Int>)],
        progress: impl FnMut(usize, usize),
    ) -> Result<(), ModelError> {
        self.calibrated(pairs, by_inputs(method, pattern), progress)
    }
}

/// What prunes a projection, given the second moments of its inputs.
fn by_inputs(
    method: PruneMethod,
    pattern: Pattern,
) -> impl Fn(&str, &mut Projection, &Hessian) -> Result<(), ModelError> {
    move |name, projection, hessian| {
        change(name, projection, |rows, [d_out, _]| match method {
            PruneMethod::Wanda => wanda(rows, d_out, &InputNorms::of(hessian), pattern),
            PruneMethod::SparseGpt => SparseGpt::new(pattern).prune(rows, d_out, hessian),
        })
    }
}

fn change(
    name: &str,
    projection: &mut Projection,
    prune: impl FnOnce(&mut [f32], [usize; 2]) -> Result<(), CompressError>,
) -> Result<(), ModelError> {
    let Some(linear) = projection.dense_mut() else {
        return Err(ModelError::PackedMatrix {
            name: name.to_owned(),
        });
    };
    let (mut rows, shape) = rows_of(linear);
    prune(&mut rows, shape).map_err(of_matrix(name))?;
    set_rows(linear, &rows);
    Ok(())
}
