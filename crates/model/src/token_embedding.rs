//! The embedding `E`, which is the output projection too when embeddings are tied.

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Initializer};
use burn::tensor::{Device, Int, Tensor};
use iiet_blocks::Precision;
use iiet_kernels::{PackedWeight, embedding, linear, packed_linear};

/// A vector of width `d_model` for each token.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "a model has one")]
pub enum TokenEmbedding {
    /// Of floats.
    Dense(Embedding),
    /// Of 8 or 4 bits.
    Packed(PackedEmbedding),
}

/// An embedding of 8 or 4 bits.
#[derive(Module, Debug)]
pub struct PackedEmbedding {
    /// `[vocab, d_model]`
    pub weight: PackedWeight,
    /// The type of the states that it gives, which those of all layers follow.
    #[module(skip)]
    pub states: Precision,
}

impl TokenEmbedding {
    /// Zeros.
    pub(crate) fn empty(vocab_size: usize, d_model: usize, device: &Device) -> Self {
        let config = EmbeddingConfig::new(vocab_size, d_model);
        Self::Dense(config.with_initializer(Initializer::Zeros).init(device))
    }

    /// `E[ids]`.
    ///
    /// # Shapes
    ///
    /// - ids: `[batch, seq]`, below `vocab`
    /// - output: `[batch, seq, d_model]`
    pub fn rows(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        match self {
            Self::Dense(dense) => embedding(dense.weight.val(), ids),
            Self::Packed(PackedEmbedding { weight, states }) => {
                weight.embedding(ids).cast(states.dtype())
            }
        }
    }

    /// `h E^T`.
    ///
    /// # Shapes
    ///
    /// - hidden: `[batch, seq, d_model]`
    /// - output: `[batch, seq, vocab]`
    pub fn project(&self, hidden: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Dense(dense) => linear(hidden, dense.weight.val().transpose()),
            Self::Packed(packed) => packed_linear(hidden, &packed.weight),
        }
    }

    /// `E`, `[vocab, d_model]`; a packed one is widened to f32.
    pub fn matrix(&self) -> Tensor<2> {
        match self {
            Self::Dense(dense) => dense.weight.val(),
            Self::Packed(packed) => packed.weight.widened(),
        }
    }

    /// The embedding, unless it is packed.
    pub fn dense_mut(&mut self) -> Option<&mut Embedding> {
        match self {
            Self::Dense(dense) => Some(dense),
            Self::Packed(_) => None,
        }
    }

    /// The packed matrix, if it is one.
    pub fn packed(&self) -> Option<&PackedWeight> {
        match self {
            Self::Dense(_) => None,
            Self::Packed(packed) => Some(&packed.weight),
        }
    }

    /// The same, to be changed.
    pub fn packed_mut(&mut self) -> Option<&mut PackedWeight> {
        match self {
            Self::Dense(_) => None,
            Self::Packed(packed) => Some(&mut packed.weight),
        }
    }

    /// `[vocab, d_model]`
    pub(crate) fn shape(&self) -> [usize; 2] {
        match self {
            Self::Dense(dense) => dense.weight.lazy_shape().dims(),
            Self::Packed(packed) => [packed.weight.d_out(), packed.weight.d_in()],
        }
    }
}
