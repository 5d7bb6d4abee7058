//! Rotary position embedding in the half-split layout.
//!
//! Su et al., *RoFormer* (arXiv 2104.09864), equation 34, with coordinate i paired with i + d/2 as
//! in LLaMA checkpoints on the hub. For the pair (a, b) at one position,
//!
//! ```text
//! a' = a cos - b sin
//! b' = b cos + a sin
//! ```
//!
//! A rotation's transpose is its inverse, so the backward pass is the same kernel with `-sin` and
//! keeps only the tables.

#[cfg(feature = "flex")]
mod flex;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, TensorMetadata};
use burn::tensor::{Shape, Slice, Tensor};

use super::rows::leading;
use crate::precision::{rounded, widened};
use crate::record::MemoryBound;
use crate::route::{composed, operation, routed};

/// Rotates every head's vectors by their positions' angles.
///
/// The tables hold one angle per pair, `head_dim / 2` per position, not both equal halves. They are
/// constants: no gradient flows to them.
///
/// # Shapes
///
/// - x and output: `[batch, heads, seq, head_dim]`, in any memory layout; a view of `[batch, seq,
///   heads, head_dim]` keeps its layout
/// - cos, sin: `[seq, head_dim / 2]`
///
/// # Panics
///
/// If the shapes of the tables and of x do not match.
pub fn rotate(x: Tensor<4>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<4> {
    let [_, _, seq, head_dim] = x.dims();
    assert!(
        head_dim.is_multiple_of(2) && cos.dims() == [seq, head_dim / 2] && sin.dims() == cos.dims(),
        "rotate: x {:?} needs tables [seq, head_dim / 2], not {:?} and {:?}",
        x.dims(),
        cos.dims(),
        sin.dims()
    );
    let (x, cos, sin) = (x.into_dispatch(), cos.into_dispatch(), sin.into_dispatch());
    Tensor::from_dispatch(routed!(Rotate::rotate(x, cos, sin, false), else forward))
}

operation! {
    /// The rotation over a backend's own tensors.
    pub trait Rotate: Backend {
        /// By the tables' angles, or by their negatives: each is the backward pass of the other.
        fn rotate(
            x: FloatTensor<Self>,
            cos: FloatTensor<Self>,
            sin: FloatTensor<Self>,
            inverse: bool,
        ) -> FloatTensor<Self> {
            forward::<Self>(x, cos, sin, inverse)
        }
    }
}

composed!(Rotate: NdArray, Cube);

pub(super) fn forward<B: Backend>(
    x: FloatTensor<B>,
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
    inverse: bool,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let [x, cos, sin] = [x, cos, sin].map(widened::<B>);
    let [seq, half] = cos.shape().dims();
    let table = |t| B::float_reshape(t, Shape::from(vec![1, 1, seq, half]));
    let (cos, sin) = (table(cos), table(sin));
    let sin = if inverse { B::float_neg(sin) } else { sin };
    let coordinates = |from, to| {
        let all = Slice::full();
        B::float_slice(x.clone(), &[all, all, all, leading(from, to)])
    };
    let (a, b) = (coordinates(0, half), coordinates(half, 2 * half));
    let turned_a = B::float_sub(
        B::float_mul(a.clone(), cos.clone()),
        B::float_mul(b.clone(), sin.clone()),
    );
    let turned_b = B::float_add(B::float_mul(b, cos), B::float_mul(a, sin));
    rounded::<B>(B::float_cat(vec![turned_a, turned_b], 3), dtype)
}

impl<B: Rotate, C: CheckpointStrategy> Rotate for Autodiff<B, C> {
    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        inverse: bool,
    ) -> FloatTensor<Self> {
        let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
        let rotation = Rotation::<B> { cos, sin, inverse };
        rotation.record::<C>([x])
    }
}

#[derive(Debug, Clone)]
struct Rotation<B: Backend> {
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
    inverse: bool,
}

impl<B: Rotate> MemoryBound<B, 1, 0> for Rotation<B> {
    fn forward(&self, [x]: [FloatTensor<B>; 1]) -> FloatTensor<B> {
        B::rotate(x, self.cos.clone(), self.sin.clone(), self.inverse)
    }

    fn backward(self, []: [FloatTensor<B>; 0], dy: FloatTensor<B>) -> [FloatTensor<B>; 1] {
        [B::rotate(dy, self.cos, self.sin, !self.inverse)]
    }
}
