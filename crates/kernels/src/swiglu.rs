//! The gate of a SwiGLU layer, `y = silu(g) * u` with `silu(g) = g sigmoid(g)`.
//!
//! Shazeer, *GLU Variants Improve Transformer* (arXiv 2002.05202), equation 6. Its gradients are
//!
//! ```text
//! dg = dy * u * s (1 + g (1 - s))       s = sigmoid(g)
//! du = dy * g s
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

/// `silu(gate) * up`, element by element.
///
/// # Shapes
///
/// - gate, up and output: the same
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
    Tensor::from_dispatch(if is_routed(&gate) {
        <Dispatch as FusedOps>::swiglu(gate, up)
    } else {
        forward::<Dispatch>(gate, up)
    })
}

pub(crate) fn forward<B: Backend>(gate: FloatTensor<B>, up: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = gate.dtype();
    let [gate, up] = [gate, up].map(widened::<B>);
    let s = B::sigmoid(gate.clone());
    rounded::<B>(B::float_mul(B::float_mul(gate, s), up), dtype)
}

pub(crate) fn backward<B: Backend>(
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

pub(crate) fn tracked<B: FusedOps, C: CheckpointStrategy>(
    gate: FloatTensor<Autodiff<B, C>>,
    up: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    match Backward::<B, 2>::prepare::<C>(SwigluBackward, [gate.node(), up.node()])
        .memory_bound()
        .retro_forward(Again::<B>(gate.id(), up.id(), PhantomData))
        .parents([&gate, &up])
        .stateful()
    {
        OpsKind::Tracked(mut prepared) => {
            let state = (prepared.checkpoint(&gate), prepared.checkpoint(&up));
            let y = B::swiglu(gate.into_primitive(), up.into_primitive());
            prepared.finish(state, y)
        }
        OpsKind::UnTracked(prepared) => {
            prepared.finish(B::swiglu(gate.into_primitive(), up.into_primitive()))
        }
    }
}

#[derive(Debug)]
struct SwigluBackward;

impl<B: FusedOps> Backward<B, 2> for SwigluBackward {
    type State = (NodeId, NodeId);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, kept: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let gate = kept.retrieve_node_output::<FloatTensor<B>>(ops.state.0);
        let up = kept.retrieve_node_output::<FloatTensor<B>>(ops.state.1);
        let (d_gate, d_up) = B::swiglu_backward(gate, up, dy);
        let [gate, up] = ops.parents;
        if let Some(node) = gate {
            grads.register::<B>(node.id, d_gate);
        }
        if let Some(node) = up {
            grads.register::<B>(node.id, d_up);
        }
    }
}

/// Computes the output again where Burn's checkpointing dropped it.
#[derive(Debug)]
struct Again<B>(NodeId, NodeId, PhantomData<B>);

impl<B: FusedOps> RetroForward for Again<B> {
    fn forward(&self, states: &mut BackwardStates, out: NodeId) {
        let gate = states.get_state::<FloatTensor<B>>(&self.0);
        let up = states.get_state::<FloatTensor<B>>(&self.1);
        states.save(out, B::swiglu(gate, up));
    }
}
