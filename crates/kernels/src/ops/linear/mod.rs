//! A bias-free projection, `y = x W`, whose gradients are accumulated in place.
//!
//! ```text
//! dx = dy W^T        dW = x^T dy, summed over all rows of x
//! ```
//!
//! An ODE solver projects by the same `W` several times per layer, so its gradient is a sum of several
//! products. Each product is added to the sum while it is computed: Burn's own operation would write every
//! product to a new tensor and then add two tensors, three passes over memory of the size of `W`.
//!
//! A decoder multiplies one row, or a few, with every matrix of the model: two operations per weight and row,
//! so it is limited by the bandwidth of reading the weights. A tiled matrix product copies its operands first
//! and uses one thread for a single row; for few rows flex multiplies with the weights in place, on all
//! threads (`flex/few_rows.rs`).

#[cfg(feature = "flex")]
pub(super) mod flex;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, TensorMetadata};
use burn::tensor::{Shape, Tensor};

use super::rows::as_rows;
use crate::precision::widened;
use crate::route::{composed, operation, routed};

/// `x W` along the last axis.
///
/// # Shapes
///
/// - x: `[.., d_in]`
/// - weight: `[d_in, d_out]`
/// - output: `[.., d_out]`
///
/// # Panics
///
/// If the length of x's last axis is not that of weight's first.
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>) -> Tensor<D> {
    assert_eq!(
        x.dims().last(),
        weight.dims().first(),
        "linear: x {:?} does not match weight {:?}",
        x.dims(),
        weight.dims()
    );
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(routed!(Linear::project(x, weight), else forward))
}

operation! {
    /// The projection over a backend's own tensors.
    pub trait Linear: Backend {
        fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
            forward::<Self>(x, weight)
        }

        /// The gradient to `weight`.
        fn weight_gradient(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
            weight_gradient::<Self>(x, dy)
        }

        /// The gradient to `weight`, added to the sum so far.
        fn add_weight_gradient(
            sum: FloatTensor<Self>,
            x: FloatTensor<Self>,
            dy: FloatTensor<Self>,
        ) -> FloatTensor<Self> {
            add_weight_gradient::<Self>(sum, x, dy)
        }
    }
}

composed!(Linear: NdArray, Cube);

/// The shape of `x` with another last axis.
pub(crate) fn with_width(mut shape: Shape, width: usize) -> Shape {
    let last = shape.num_dims() - 1;
    shape[last] = width;
    shape
}

pub(super) fn forward<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    let shape = with_width(x.shape(), weight.shape()[1]);
    B::float_reshape(B::float_matmul(as_rows::<B>(x), weight), shape)
}

/// `dW`, in f32 also if `x` has half precision, because it will be summed.
pub(crate) fn weight_gradient<B: Backend>(x: FloatTensor<B>, dy: FloatTensor<B>) -> FloatTensor<B> {
    let x = B::float_swap_dims(as_rows::<B>(x), 0, 1);
    widened::<B>(B::float_matmul(x, as_rows::<B>(dy)))
}

fn add_weight_gradient<B: Backend>(
    sum: FloatTensor<B>,
    x: FloatTensor<B>,
    dy: FloatTensor<B>,
) -> FloatTensor<B> {
    B::float_add(sum, weight_gradient::<B>(x, dy))
}

impl<B: Linear, C: CheckpointStrategy> Linear for Autodiff<B, C> {
    fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let prepared = Backward::<B, 2>::prepare::<C>(LinearBackward, [x.node(), weight.node()])
            .compute_bound()
            .stateful();
        match prepared {
            OpsKind::Tracked(mut prepared) => {
                let state = (prepared.checkpoint(&x), weight.clone());
                let y = B::project(x.into_primitive(), weight.into_primitive());
                prepared.finish(state, y)
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(B::project(x.into_primitive(), weight.into_primitive()))
            }
        }
    }
}

/// Recorded separately and not as in [`crate::record`], because the gradient to the weight is added to the
/// sum that the graph holds for it.
#[derive(Debug)]
struct LinearBackward;

impl<B: Linear> Backward<B, 2> for LinearBackward {
    /// `x` for the product, and the node of the weight, which names its gradient so far.
    type State = (
        NodeId,
        <Autodiff<B> as burn::backend::BackendTypes>::FloatTensorPrimitive,
    );

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, kept: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, weight) = ops.state;
        let x = kept.retrieve_node_output::<FloatTensor<B>>(x);
        let [x_node, weight_node] = ops.parents;
        if let Some(node) = weight_node {
            let d_weight = match grads.remove::<B>(&weight) {
                Some(sum) => B::add_weight_gradient(sum, x, dy.clone()),
                None => B::weight_gradient(x, dy.clone()),
            };
            grads.register::<B>(node.id, d_weight);
        }
        if let Some(node) = x_node {
            let back = B::float_swap_dims(weight.into_primitive(), 0, 1);
            grads.register::<B>(node.id, B::project(dy, back));
        }
    }
}
