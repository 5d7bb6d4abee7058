//! The gate of a SwiGLU layer, `y = silu(g) * u` with `silu(g) = g sigmoid(g)`.
//!
//! Shazeer, *GLU Variants Improve Transformer* (arXiv 2002.05202), equation 6. Its gradients are
//!
//! ```text
//! dg = dy * u * s (1 + g (1 - s))       s = sigmoid(g)
//! du = dy * g s
//! ```

#[cfg(feature = "flex")]
mod flex;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, TensorMetadata};
use burn::tensor::Tensor;

use crate::precision::{rounded, widened};
use crate::record::MemoryBound;
use crate::route::{composed, operation, routed};

/// `silu(gate) * up`, elementwise.
///
/// # Shapes
///
/// - gate, up and output: all equal
///
/// # Panics
///
/// If the shapes differ.
pub fn swiglu<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    assert_eq!(
        gate.dims(),
        up.dims(),
        "swiglu: gate and up differ in shape"
    );
    let (gate, up) = (gate.into_dispatch(), up.into_dispatch());
    Tensor::from_dispatch(routed!(Swiglu::swiglu(gate, up), else forward))
}

operation! {
    /// The gate over a backend's own tensors.
    pub trait Swiglu: Backend {
        fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
            forward::<Self>(gate, up)
        }

        /// Gradients to `gate` and `up`.
        fn swiglu_backward(
            gate: FloatTensor<Self>,
            up: FloatTensor<Self>,
            dy: FloatTensor<Self>,
        ) -> (FloatTensor<Self>, FloatTensor<Self>) {
            backward::<Self>(gate, up, dy)
        }
    }
}

composed!(Swiglu: NdArray, Cube);

pub(super) fn forward<B: Backend>(gate: FloatTensor<B>, up: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = gate.dtype();
    let [gate, up] = [gate, up].map(widened::<B>);
    let s = B::sigmoid(gate.clone());
    rounded::<B>(B::float_mul(B::float_mul(gate, s), up), dtype)
}

pub(super) fn backward<B: Backend>(
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
    dy: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let dtype = gate.dtype();
    let [gate, up, dy] = [gate, up, dy].map(widened::<B>);
    let s = B::sigmoid(gate.clone());
    let silu = B::float_mul(gate.clone(), s.clone());
    let d_up = B::float_mul(dy.clone(), silu.clone());
    // s (1 + g (1 - s)) = s (1 + g - silu)
    let slope = B::float_mul(
        s,
        B::float_add_scalar(B::float_sub(gate, silu), 1.0f64.into()),
    );
    let d_gate = B::float_mul(B::float_mul(dy, up), slope);
    (rounded::<B>(d_gate, dtype), rounded::<B>(d_up, dtype))
}

impl<B: Swiglu, C: CheckpointStrategy> Swiglu for Autodiff<B, C> {
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        Gate.record::<C>([gate, up])
    }
}

#[derive(Debug, Clone)]
struct Gate;

impl<B: Swiglu> MemoryBound<B, 2, 2> for Gate {
    fn forward(&self, [gate, up]: [FloatTensor<B>; 2]) -> FloatTensor<B> {
        B::swiglu(gate, up)
    }

    fn backward(self, [gate, up]: [FloatTensor<B>; 2], dy: FloatTensor<B>) -> [FloatTensor<B>; 2] {
        B::swiglu_backward(gate, up, dy).into()
    }
}
