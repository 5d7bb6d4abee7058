//! Log-probabilities, `y = x - log sum exp x` along the last axis.

#[cfg(feature = "flex")]
mod flex;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, TensorMetadata};
use burn::tensor::Tensor;

use crate::precision::{rounded, widened};
use crate::route::{composed, operation, routed};

/// `log softmax(x)` along the last axis.
///
/// Forward only: nothing is recorded for a backward pass, and on an autodiff device the output is a constant. A row
/// with a NaN, with +inf or with -inf alone becomes one of NaN.
///
/// # Shapes
///
/// - x and output: `[rows, n]`, of any float type; computed in f32
pub fn log_softmax(x: Tensor<2>) -> Tensor<2> {
    let x = x.into_dispatch();
    Tensor::from_dispatch(routed!(LogSoftmax::log_probabilities(x), else forward))
}

operation! {
    /// Log-probabilities over a backend's own tensors.
    pub trait LogSoftmax: Backend {
        fn log_probabilities(x: FloatTensor<Self>) -> FloatTensor<Self> {
            forward::<Self>(x)
        }
    }
}

composed!(LogSoftmax: NdArray, Cube);

impl<B: LogSoftmax, C: CheckpointStrategy> LogSoftmax for Autodiff<B, C> {
    /// Nothing is recorded: the output is a constant.
    fn log_probabilities(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::from_inner(B::log_probabilities(x.into_primitive()))
    }
}

pub(super) fn forward<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = x.dtype();
    rounded::<B>(B::log_softmax(widened::<B>(x), 1), dtype)
}
