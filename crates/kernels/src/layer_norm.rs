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

/// `gamma * (x - mean(x)) / sqrt(var(x) + eps) + beta` over the last axis, with the biased variance.
///
/// # Shapes
///
/// - x and output: `[.., d_model]`
/// - gamma and beta: `[d_model]`
///
/// # Panics
///
/// If gamma or beta is not as long as the last axis.
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
    Tensor::from_dispatch(if is_routed(&x) {
        <Dispatch as FusedOps>::layer_norm(x, gamma, beta, eps)
    } else {
        forward::<Dispatch>(x, gamma, beta, eps)
    })
}

pub(crate) fn forward<B: Backend>(
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

pub(crate) fn backward<B: Backend>(
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

pub(crate) fn tracked<B: FusedOps, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    gamma: FloatTensor<Autodiff<B, C>>,
    beta: FloatTensor<Autodiff<B, C>>,
    eps: f64,
) -> FloatTensor<Autodiff<B, C>> {
    let again = Again::<B> {
        x: x.id(),
        gamma: gamma.id(),
        beta: beta.id(),
        eps,
        backend: PhantomData,
    };
    let nodes = [x.node(), gamma.node(), beta.node()];
    match Backward::<B, 3>::prepare::<C>(LayerNormBackward, nodes)
        .memory_bound()
        .retro_forward(again)
        .parents([&x, &gamma, &beta])
        .stateful()
    {
        OpsKind::Tracked(mut prepared) => {
            let state = (prepared.checkpoint(&x), prepared.checkpoint(&gamma), eps);
            let beta = beta.into_primitive();
            let y =
                <B as FusedOps>::layer_norm(x.into_primitive(), gamma.into_primitive(), beta, eps);
            prepared.finish(state, y)
        }
        OpsKind::UnTracked(prepared) => {
            let beta = beta.into_primitive();
            let y =
                <B as FusedOps>::layer_norm(x.into_primitive(), gamma.into_primitive(), beta, eps);
            prepared.finish(y)
        }
    }
}

#[derive(Debug)]
struct LayerNormBackward;

impl<B: FusedOps> Backward<B, 3> for LayerNormBackward {
    type State = (NodeId, NodeId, f64);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, kept: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let x = kept.retrieve_node_output::<FloatTensor<B>>(ops.state.0);
        let gamma = kept.retrieve_node_output::<FloatTensor<B>>(ops.state.1);
        let (dx, d_gamma, d_beta) = B::layer_norm_backward(x, gamma, dy, ops.state.2);
        for (parent, gradient) in ops.parents.into_iter().zip([dx, d_gamma, d_beta]) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

/// Computes the output again where Burn's checkpointing dropped it.
#[derive(Debug)]
struct Again<B> {
    x: NodeId,
    gamma: NodeId,
    beta: NodeId,
    eps: f64,
    backend: PhantomData<B>,
}

impl<B: FusedOps> RetroForward for Again<B> {
    fn forward(&self, states: &mut BackwardStates, out: NodeId) {
        let x = states.get_state::<FloatTensor<B>>(&self.x);
        let gamma = states.get_state::<FloatTensor<B>>(&self.gamma);
        let beta = states.get_state::<FloatTensor<B>>(&self.beta);
        states.save(out, <B as FusedOps>::layer_norm(x, gamma, beta, self.eps));
    }
}
