//! Sums of two tensors of one shape: residual connections, and gradients of a tensor with several uses.
//!
//! Burn's own addition uses one thread, and converts half precision entry by entry. A layer takes several sums of
//! the size of its states, each as long as the other threads wait.

#[cfg(feature = "flex")]
mod flex;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};
use burn::tensor::Tensor;

use crate::record::MemoryBound;
use crate::route::{composed, operation, routed};

/// `x + y`.
///
/// # Shapes
///
/// - x, y and output: all equal
///
/// # Panics
///
/// If the shapes differ: nothing is broadcast.
pub fn add<const D: usize>(x: Tensor<D>, y: Tensor<D>) -> Tensor<D> {
    assert_eq!(x.dims(), y.dims(), "add: the shapes differ");
    let (x, y) = (x.into_dispatch(), y.into_dispatch());
    Tensor::from_dispatch(routed!(Add::add(x, y), else forward))
}

operation! {
    /// The sum over a backend's own tensors.
    pub trait Add: Backend {
        fn add(x: FloatTensor<Self>, y: FloatTensor<Self>) -> FloatTensor<Self> {
            forward::<Self>(x, y)
        }
    }
}

composed!(Add: NdArray, Cube);

pub(super) fn forward<B: Backend>(x: FloatTensor<B>, y: FloatTensor<B>) -> FloatTensor<B> {
    B::float_add(x, y)
}

impl<B: Add, C: CheckpointStrategy> Add for Autodiff<B, C> {
    fn add(x: FloatTensor<Self>, y: FloatTensor<Self>) -> FloatTensor<Self> {
        Sum.record::<C>([x, y])
    }
}

#[derive(Debug, Clone)]
struct Sum;

impl<B: Add> MemoryBound<B, 2, 0> for Sum {
    fn forward(&self, [x, y]: [FloatTensor<B>; 2]) -> FloatTensor<B> {
        B::add(x, y)
    }

    fn backward(self, []: [FloatTensor<B>; 0], dy: FloatTensor<B>) -> [FloatTensor<B>; 2] {
        [dy.clone(), dy]
    }
}
