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
//! Only `x` is kept: a row's `r` costs one more pass over values that are in cache anyway.

use std::marker::PhantomData;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::retro_forward::RetroForward;
use burn::backend::autodiff::checkpoint::state::BackwardStates;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata};
use burn::tensor::Tensor;

use crate::ops::{FusedOps, is_routed};
use crate::precision::{rounded, widened};
use crate::rows::{as_row, as_rows, sum_of_rows};

/// `gamma * x / sqrt(mean(x^2) + eps)` over the last axis.
///
/// # Shapes
///
/// - x and output: `[.., d_model]`
/// - gamma: `[d_model]`
///
/// # Panics
///
/// If gamma is not as long as the last axis.
pub fn rms_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, eps: f64) -> Tensor<D> {
    assert_eq!(
        x.dims().last(),
        gamma.dims().last(),
        "rms_norm: gamma must be as long as the last axis of x"
    );
    let (x, gamma) = (x.into_dispatch(), gamma.into_dispatch());
    Tensor::from_dispatch(if is_routed(&x) {
        <Dispatch as FusedOps>::rms_norm(x, gamma, eps)
    } else {
        forward::<Dispatch>(x, gamma, eps)
    })
}

pub(crate) fn forward<B: Backend>(
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

pub(crate) fn backward<B: Backend>(
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

pub(crate) fn tracked<B: FusedOps, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    gamma: FloatTensor<Autodiff<B, C>>,
    eps: f64,
) -> FloatTensor<Autodiff<B, C>> {
    match Backward::<B, 2>::prepare::<C>(RmsNormBackward, [x.node(), gamma.node()])
        .memory_bound()
        .retro_forward(Again::<B>(x.id(), gamma.id(), eps, PhantomData))
        .parents([&x, &gamma])
        .stateful()
    {
        OpsKind::Tracked(mut prepared) => {
            let state = (prepared.checkpoint(&x), prepared.checkpoint(&gamma), eps);
            let y = B::rms_norm(x.into_primitive(), gamma.into_primitive(), eps);
            prepared.finish(state, y)
        }
        OpsKind::UnTracked(prepared) => {
            prepared.finish(B::rms_norm(x.into_primitive(), gamma.into_primitive(), eps))
        }
    }
}

#[derive(Debug)]
struct RmsNormBackward;

impl<B: FusedOps> Backward<B, 2> for RmsNormBackward {
    type State = (NodeId, NodeId, f64);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, kept: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let x = kept.retrieve_node_output::<FloatTensor<B>>(ops.state.0);
        let gamma = kept.retrieve_node_output::<FloatTensor<B>>(ops.state.1);
        let (dx, d_gamma) = B::rms_norm_backward(x, gamma, dy, ops.state.2);
        let [x, gamma] = ops.parents;
        if let Some(node) = x {
            grads.register::<B>(node.id, dx);
        }
        if let Some(node) = gamma {
            grads.register::<B>(node.id, d_gamma);
        }
    }
}

/// Computes the output again where Burn's checkpointing dropped it.
#[derive(Debug)]
struct Again<B>(NodeId, NodeId, f64, PhantomData<B>);

impl<B: FusedOps> RetroForward for Again<B> {
    fn forward(&self, states: &mut BackwardStates, out: NodeId) {
        let x = states.get_state::<FloatTensor<B>>(&self.0);
        let gamma = states.get_state::<FloatTensor<B>>(&self.1);
        states.save(out, B::rms_norm(x, gamma, self.2));
    }
}
