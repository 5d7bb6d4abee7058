//! Layer norm, `y = gamma * n + beta` with `n = (x - mean(x)) r`, `r = 1 / sqrt(var(x) + eps)`.
//!
//! Ba, Kiros and Hinton, *Layer Normalization* (arXiv 1607.06450), equation 4; the variance is the
//! biased one. With `g = gamma * dy`, over the last axis,
//!
//! ```text
//! dx     = r (g - mean(g) - n mean(g n))
//! dgamma = sum over rows of dy n
//! dbeta  = sum over rows of dy
//! ```

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

/// `gamma * (x - mean(x)) / sqrt(var(x) + eps) + beta` over the last axis, with the biased variance.
///
/// # Shapes
///
/// - x and output: `[.., d_model]`
/// - gamma and beta: `[d_model]`
///
/// # Panics
///
/// If the length of gamma or beta is not that of the last axis.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    let d_model = x.dims().last().copied();
    assert!(
        d_model == gamma.dims().last().copied() && d_model == beta.dims().last().copied(),
        "layer_norm: gamma {:?} and beta {:?} must be as long as the last axis of x {:?}",
        gamma.dims(),
        beta.dims(),
        x.dims()
    );
    let (x, gamma, beta) = (
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
    );
    Tensor::from_dispatch(routed!(LayerNorm::layer_norm(x, gamma, beta, eps), else forward))
}

operation! {
    /// The norm over a backend's own tensors.
    pub trait LayerNorm: Backend {
        fn layer_norm(
            x: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            beta: FloatTensor<Self>,
            eps: f64,
        ) -> FloatTensor<Self> {
            forward::<Self>(x, gamma, beta, eps)
        }

        /// Gradients to `x`, `gamma` and `beta`.
        fn layer_norm_backward(
            x: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            dy: FloatTensor<Self>,
            eps: f64,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
            backward::<Self>(x, gamma, dy, eps)
        }
    }
}

composed!(LayerNorm: NdArray, Cube);

pub(super) fn forward<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    eps: f64,
) -> FloatTensor<B> {
    let (shape, dtype) = (x.shape(), x.dtype());
    let [x, gamma, beta] = [as_rows::<B>(x), gamma, beta].map(widened::<B>);
    let (n, _) = normalised::<B>(x, eps);
    let y = B::float_add(B::float_mul(n, as_row::<B>(gamma)), as_row::<B>(beta));
    rounded::<B>(B::float_reshape(y, shape), dtype)
}

pub(super) fn backward<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    dy: FloatTensor<B>,
    eps: f64,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let (shape, dtype) = (x.shape(), x.dtype());
    let [x, dy, gamma] = [as_rows::<B>(x), as_rows::<B>(dy), gamma].map(widened::<B>);
    let (n, r) = normalised::<B>(x, eps);
    let d_beta = sum_of_rows::<B>(dy.clone());
    let d_gamma = sum_of_rows::<B>(B::float_mul(dy.clone(), n.clone()));
    let g = B::float_mul(dy, as_row::<B>(gamma));
    let mean = B::float_mean_dim(g.clone(), 1);
    let along = B::float_mean_dim(B::float_mul(g.clone(), n.clone()), 1);
    let centred = B::float_sub(B::float_sub(g, mean), B::float_mul(n, along));
    let dx = B::float_mul(centred, r);
    let dx = rounded::<B>(B::float_reshape(dx, shape), dtype);
    (dx, d_gamma, d_beta)
}

/// `n` `[rows, d]` and `r` `[rows, 1]`.
fn normalised<B: Backend>(x: FloatTensor<B>, eps: f64) -> (FloatTensor<B>, FloatTensor<B>) {
    let mean = B::float_mean_dim(x.clone(), 1);
    let centred = B::float_sub(x, mean);
    let variance = B::float_mean_dim(B::float_mul(centred.clone(), centred.clone()), 1);
    let r = B::float_recip(B::float_sqrt(B::float_add_scalar(variance, eps.into())));
    (B::float_mul(centred, r.clone()), r)
}

impl<B: LayerNorm, C: CheckpointStrategy> LayerNorm for Autodiff<B, C> {
    fn layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        Norm { eps }.record::<C>([x, gamma, beta])
    }
}

#[derive(Debug, Clone)]
struct Norm {
    eps: f64,
}

impl<B: LayerNorm> MemoryBound<B, 3, 2> for Norm {
    fn forward(&self, [x, gamma, beta]: [FloatTensor<B>; 3]) -> FloatTensor<B> {
        // Burn has a method with this name too.
        <B as LayerNorm>::layer_norm(x, gamma, beta, self.eps)
    }

    fn backward(self, [x, gamma]: [FloatTensor<B>; 2], dy: FloatTensor<B>) -> [FloatTensor<B>; 3] {
        B::layer_norm_backward(x, gamma, dy, self.eps).into()
    }
}
