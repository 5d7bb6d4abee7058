//! Root-mean-square norm, `y = gamma * x r` with `r = 1 / sqrt(mean(x^2) + eps)`.
//!
//! Zhang and Sennrich, *Root Mean Square Layer Normalization* (arXiv 1910.07467), equation 4. With
//! `n = x r` and `g = gamma * dy`, over the last axis,
//!
//! ```text
//! dx     = r (g - n mean(g n))
//! dgamma = sum over rows of dy n
//! ```
//!
//! Only `x` is kept: recomputing a row's `r` costs one more pass over values that are in cache
//! anyway.

#[cfg(feature = "flex")]
mod flex;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, TensorMetadata};
use burn::tensor::Tensor;

use super::rows::{as_row, as_rows, sum_of_rows};
use crate::precision::{rounded, widened};
use crate::record::MemoryBound;
use crate::route::{composed, operation, routed};

/// `gamma * x / sqrt(mean(x^2) + eps)` over the last axis.
///
/// # Shapes
///
/// - x and output: `[.., d_model]`
/// - gamma: `[d_model]`
///
/// # Panics
///
/// If the length of gamma is not that of the last axis.
pub fn rms_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, eps: f64) -> Tensor<D> {
    assert_eq!(
        x.dims().last(),
        gamma.dims().last(),
        "rms_norm: gamma must be as long as the last axis of x"
    );
    let (x, gamma) = (x.into_dispatch(), gamma.into_dispatch());
    Tensor::from_dispatch(routed!(RmsNorm::rms_norm(x, gamma, eps), else forward))
}

operation! {
    /// The norm over a backend's own tensors.
    pub trait RmsNorm: Backend {
        fn rms_norm(
            x: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            eps: f64,
        ) -> FloatTensor<Self> {
            forward::<Self>(x, gamma, eps)
        }

        /// Gradients to `x` and `gamma`.
        fn rms_norm_backward(
            x: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            dy: FloatTensor<Self>,
            eps: f64,
        ) -> (FloatTensor<Self>, FloatTensor<Self>) {
            backward::<Self>(x, gamma, dy, eps)
        }
    }
}

composed!(RmsNorm: NdArray, Cube);

pub(super) fn forward<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    eps: f64,
) -> FloatTensor<B> {
    let (shape, dtype) = (x.shape(), x.dtype());
    let (x, gamma) = (widened::<B>(as_rows::<B>(x)), widened::<B>(gamma));
    let r = inverse_rms::<B>(x.clone(), eps);
    let y = B::float_mul(B::float_mul(x, r), as_row::<B>(gamma));
    rounded::<B>(B::float_reshape(y, shape), dtype)
}

pub(super) fn backward<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    dy: FloatTensor<B>,
    eps: f64,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (shape, dtype) = (x.shape(), x.dtype());
    let [x, dy, gamma] = [as_rows::<B>(x), as_rows::<B>(dy), gamma].map(widened::<B>);
    let r = inverse_rms::<B>(x.clone(), eps);
    let n = B::float_mul(x, r.clone());
    let d_gamma = sum_of_rows::<B>(B::float_mul(dy.clone(), n.clone()));
    let g = B::float_mul(dy, as_row::<B>(gamma));
    let along = B::float_mean_dim(B::float_mul(g.clone(), n.clone()), 1);
    let dx = B::float_mul(B::float_sub(g, B::float_mul(n, along)), r);
    let dx = rounded::<B>(B::float_reshape(dx, shape), dtype);
    (dx, d_gamma)
}

/// `1 / sqrt(mean(x^2) + eps)`, `[rows, 1]`.
fn inverse_rms<B: Backend>(x: FloatTensor<B>, eps: f64) -> FloatTensor<B> {
    let mean_square = B::float_mean_dim(B::float_mul(x.clone(), x), 1);
    B::float_recip(B::float_sqrt(B::float_add_scalar(mean_square, eps.into())))
}

impl<B: RmsNorm, C: CheckpointStrategy> RmsNorm for Autodiff<B, C> {
    fn rms_norm(x: FloatTensor<Self>, gamma: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        Norm { eps }.record::<C>([x, gamma])
    }
}

#[derive(Debug, Clone)]
struct Norm {
    eps: f64,
}

impl<B: RmsNorm> MemoryBound<B, 2, 2> for Norm {
    fn forward(&self, [x, gamma]: [FloatTensor<B>; 2]) -> FloatTensor<B> {
        B::rms_norm(x, gamma, self.eps)
    }

    fn backward(self, [x, gamma]: [FloatTensor<B>; 2], dy: FloatTensor<B>) -> [FloatTensor<B>; 2] {
        B::rms_norm_backward(x, gamma, dy, self.eps).into()
    }
}
