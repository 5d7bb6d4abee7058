//! Matrices of 8 and 4 bits, by rounding or by GPTQ.

use burn::module::Param;
use burn::nn::Embedding;
use burn::tensor::{DType, Int, Tensor};
use iiet_blocks::{Block, Precision, Projection};
use iiet_compress::{
    Activations, CompressError, Gptq, Hessian, PackedMatrix, Range, Scheme, round,
};
use iiet_kernels::PackedWeight;
use iiet_ode::NetworkSolver;

use super::{of_matrix, rows_of};
use crate::checkpoint::values_of;
use crate::projections::{HEAD, Projections};
use crate::{EncoderDecoder, LanguageModel, ModelError, PackedEmbedding, Source, TokenEmbedding};

/// Rounds every projection of the layers to the nearest values of a scheme, and with `embeddings` also the
/// embedding and the output projection. Norms, biases and the solver's coefficients stay as they are. Matrices
/// that are packed already stay, too.
///
/// # Errors
///
/// [`ModelError::Compress`] with the matrix' name if groups do not divide its input width, or a weight is too
/// large.
pub fn round_to_bits<M: Projections>(
    model: &mut M,
    scheme: Scheme,
    embeddings: bool,
) -> Result<(), ModelError> {
    check_groups(model, scheme, embeddings)?;
    for (name, projection) in model.projections_mut() {
        if embeddings || name != HEAD {
            pack(&name, projection, |rows, [d_out, d_in]| {
                round(rows, d_out, d_in, scheme, Range::default())
            })?;
        }
    }
    match embeddings {
        true => pack_embedding(model, scheme),
        false => Ok(()),
    }
}

/// From now on the products of all packed matrices treat their inputs so.
pub fn treat_inputs<M: Projections>(model: &mut M, activations: Activations) {
    let treat = |weight: &mut PackedWeight| *weight = weight.clone().with_activations(activations);
    for (_, projection) in model.projections_mut() {
        projection.packed_mut().map(treat);
    }
    let (_, embedding) = model.embedding_mut();
    embedding.packed_mut().map(treat);
}

/// Replaces matrices of 8 and 4 bits by the floats that they stand for, in f32.
pub fn widen<M: Projections>(model: &mut M) {
    for (_, projection) in model.projections_mut() {
        projection.widen();
    }
    let (_, embedding) = model.embedding_mut();
    if embedding.packed().is_some() {
        let weight = Param::from_tensor(embedding.matrix());
        *embedding = TokenEmbedding::Dense(Embedding { weight });
    }
}

impl<B: Block, S: NetworkSolver> LanguageModel<B, S> {
    /// Quantises as [`round_to_bits`] does, but such that the products of the texts' states change least (GPTQ).
    ///
    /// The inputs of every evaluation of a layer count: for a layer with r corrections 1 + r of each token. An
    /// embedding that is also the output projection is rounded. `progress` is called with the number of completed
    /// layers and their total.
    ///
    /// # Shapes
    ///
    /// - texts: `[batch, seq]` each, without padding, ids below `vocab_size`
    ///
    /// # Errors
    ///
    /// As for [`round_to_bits`]; also for states that are not finite, and for too few texts.
    pub fn gptq(
        &mut self,
        method: &Gptq,
        embeddings: bool,
        texts: &[Tensor<2, Int>],
        progress: impl FnMut(usize, usize),
    ) -> Result<(), ModelError> {
        check_groups(self, method.scheme, embeddings)?;
        let quantise = by_gptq(method);
        self.calibrated(
            texts,
            |name, projection, hessian| match embeddings || name != HEAD {
                true => quantise(name, projection, hessian),
                false => Ok(()),
            },
            progress,
        )?;
        match embeddings {
            true => pack_embedding(self, method.scheme),
            false => Ok(()),
        }
    }
}

impl EncoderDecoder {
    /// Quantises as [`round_to_bits`] does, but such that the products of the states of these pairs change least
    /// (GPTQ), on both sides.
    ///
    /// The inputs of every evaluation of a layer count; the embedding is rounded. `progress` is called with the number of
    /// completed layers and their total.
    ///
    /// # Shapes
    ///
    /// - pairs: sources and targets, `[batch, target]` each, both without padding, ids below `vocab_size`
    ///
    /// # Errors
    ///
    /// As for [`round_to_bits`]; also for states that are not finite, and for too few pairs.
    pub fn gptq(
        &mut self,
        method: &Gptq,
        embeddings: bool,
        pairs: &[(Source, Tensor<2, Int>)],
        progress: impl FnMut(usize, usize),
    ) -> Result<(), ModelError> {
        check_groups(self, method.scheme, embeddings)?;
        self.calibrated(pairs, by_gptq(method), progress)?;
        match embeddings {
            true => pack_embedding(self, method.scheme),
            false => Ok(()),
        }
    }
}

/// Checks that groups divide all widths, before the work.
fn check_groups<M: Projections>(
    model: &M,
    scheme: Scheme,
    embeddings: bool,
) -> Result<(), ModelError> {
    for (name, projection) in model.projections() {
        if projection.dense().is_some() && (embeddings || name != HEAD) {
            let [d_in, d_out] = projection.widths();
            scheme.check(d_out, d_in).map_err(of_matrix(&name))?;
        }
    }
    let (name, embedding) = model.embedding();
    match embeddings && embedding.packed().is_none() {
        true => {
            let [vocab, d_model] = embedding.matrix().dims();
            scheme.check(vocab, d_model).map_err(of_matrix(name))
        }
        false => Ok(()),
    }
}

/// What packs a projection, given the second moments of its inputs.
fn by_gptq(method: &Gptq) -> impl Fn(&str, &mut Projection, &Hessian) -> Result<(), ModelError> {
    move |name, projection, hessian| {
        pack(name, projection, |rows, [d_out, _]| {
            method.quantise(rows, d_out, hessian)
        })
    }
}

fn pack(
    name: &str,
    projection: &mut Projection,
    quantise: impl FnOnce(&[f32], [usize; 2]) -> Result<PackedMatrix, CompressError>,
) -> Result<(), ModelError> {
    let Some(linear) = projection.dense() else {
        return Ok(());
    };
    let device = linear.weight.val().device();
    let (rows, shape) = rows_of(linear);
    let matrix = quantise(&rows, shape).map_err(of_matrix(name))?;
    projection.pack(PackedWeight::new(&matrix.view(), &device));
    Ok(())
}

fn pack_embedding<M: Projections>(model: &mut M, scheme: Scheme) -> Result<(), ModelError> {
    let (name, embedding) = model.embedding_mut();
    if embedding.packed().is_some() {
        return Ok(());
    }
    let matrix = embedding.matrix();
    let (device, [vocab, d_model]) = (matrix.device(), matrix.dims());
    let states = match matrix.dtype() {
        DType::BF16 => Precision::Bf16,
        DType::F16 => Precision::F16,
        _ => Precision::F32,
    };
    let rounded = round(
        &values_of(&matrix),
        vocab,
        d_model,
        scheme,
        Range::default(),
    );
    let rounded = rounded.map_err(of_matrix(name))?;
    *embedding = TokenEmbedding::Packed(PackedEmbedding {
        weight: PackedWeight::new(&rounded.view(), &device),
        states,
    });
    Ok(())
}
