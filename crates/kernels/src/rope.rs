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
//! keeps nothing but the tables.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::retro_forward::RetroForward;
use burn::backend::autodiff::checkpoint::state::BackwardStates;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata};
use burn::tensor::{Shape, Slice, Tensor};

use crate::ops::{FusedOps, is_routed};
use crate::precision::{rounded, widened};
use crate::rows::leading;

/// Rotates every head's vectors by their positions' angles.
///
/// The tables hold one angle for each pair, `head_dim / 2` a position, not both equal halves. They
/// are constants: no gradient flows to them.
///
/// # Shapes
///
/// - x and output: `[batch, heads, seq, head_dim]`, in any memory order; a view of
///   `[batch, seq, heads, head_dim]` is rotated as it lies
/// - cos, sin: `[seq, head_dim / 2]`
///
/// # Panics
///
/// If the tables do not fit x.
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
    Tensor::from_dispatch(if is_routed(&x) {
        <Dispatch as FusedOps>::rotate(x, cos, sin, false)
    } else {
        forward::<Dispatch>(x, cos, sin, false)
    })
}

pub(crate) fn forward<B: Backend>(
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

pub(crate) fn tracked<B: FusedOps, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    cos: FloatTensor<Autodiff<B, C>>,
    sin: FloatTensor<Autodiff<B, C>>,
    inverse: bool,
) -> FloatTensor<Autodiff<B, C>> {
    let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
    let again = Again::<B> {
        x: x.id(),
        cos: cos.clone(),
        sin: sin.clone(),
        inverse,
    };
    match Backward::<B, 1>::prepare::<C>(RotateBackward, [x.node()])
        .memory_bound()
        .retro_forward(again)
        .parents([&x])
        .stateful()
    {
        OpsKind::Tracked(prepared) => {
            let state = (cos.clone(), sin.clone(), inverse);
            prepared.finish(state, B::rotate(x.into_primitive(), cos, sin, inverse))
        }
        OpsKind::UnTracked(prepared) => {
            prepared.finish(B::rotate(x.into_primitive(), cos, sin, inverse))
        }
    }
}

#[derive(Debug)]
struct RotateBackward;

impl<B: FusedOps> Backward<B, 1> for RotateBackward {
    type State = (FloatTensor<B>, FloatTensor<B>, bool);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (cos, sin, inverse) = ops.state;
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::rotate(dy, cos, sin, !inverse));
        }
    }
}

/// Computes the output again where Burn's checkpointing dropped it.
#[derive(Debug)]
struct Again<B: Backend> {
    x: NodeId,
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
    inverse: bool,
}

impl<B: FusedOps> RetroForward for Again<B> {
    fn forward(&self, states: &mut BackwardStates, out: NodeId) {
        let x = states.get_state::<FloatTensor<B>>(&self.x);
        states.save(
            out,
            B::rotate(x, self.cos.clone(), self.sin.clone(), self.inverse),
        );
    }
}
