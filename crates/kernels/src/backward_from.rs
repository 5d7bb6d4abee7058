//! A backward pass that starts at several tensors, with gradients that are given.
//!
//! Burn's starts at one scalar with gradient one. To differentiate a part of a computation whose
//! outputs' gradients are known, as when a layer is run again, its outputs are strung on a scalar
//! `o_k = seed(o_{k-1}, x_k)` that does no arithmetic: in the backward pass each link hands `x_k` its
//! gradient, whose sum with others is then taken as in any backward pass.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch};
use burn::tensor::{self, Tensor};

use crate::ops::{FusedOps, is_routed};

/// The gradients of everything that the outputs were computed from, given the outputs' own: the sum
/// over outputs of `<output, gradient>`, differentiated.
///
/// # Shapes
///
/// - each output and its gradient: the same
///
/// # Panics
///
/// If there are no outputs, none is tracked, or a shape differs from its gradient's.
pub fn backward_from<const D: usize>(
    outputs: impl IntoIterator<Item = (Tensor<D>, Tensor<D>)>,
) -> tensor::Gradients {
    let links = outputs
        .into_iter()
        .fold(None, |last: Option<Tensor<1>>, (output, gradient)| {
            assert_eq!(
                output.dims(),
                gradient.dims(),
                "backward_from: an output and its gradient differ in shape"
            );
            let last = last.unwrap_or_else(|| Tensor::zeros([1], &output.device()));
            let (last, output) = (last.into_dispatch(), output.into_dispatch());
            let gradient = gradient.into_dispatch();
            Some(Tensor::from_dispatch(if is_routed(&output) {
                <Dispatch as FusedOps>::seed(last, output, gradient)
            } else {
                composed::<Dispatch>(last, output, gradient)
            }))
        });
    links
        .expect("backward_from: there are no outputs")
        .backward()
}

/// `last + <x, gradient>`: the same gradients, with arithmetic.
pub(crate) fn composed<B: Backend>(
    last: FloatTensor<B>,
    x: FloatTensor<B>,
    gradient: FloatTensor<B>,
) -> FloatTensor<B> {
    let along = B::float_sum(B::float_mul(x, gradient));
    B::float_add(last, along)
}

pub(crate) fn tracked<B: FusedOps, C: CheckpointStrategy>(
    last: FloatTensor<Autodiff<B, C>>,
    x: FloatTensor<Autodiff<B, C>>,
    gradient: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    let prepared = Backward::<B, 2>::prepare::<C>(SeedBackward, [last.node(), x.node()])
        .compute_bound()
        .stateful();
    match prepared {
        OpsKind::Tracked(prepared) => {
            prepared.finish(gradient.into_primitive(), last.into_primitive())
        }
        OpsKind::UnTracked(prepared) => prepared.finish(last.into_primitive()),
    }
}

#[derive(Debug)]
struct SeedBackward;

impl<B: FusedOps> Backward<B, 2> for SeedBackward {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let one = grads.consume::<B>(&ops.node);
        let [last, x] = ops.parents;
        if let Some(node) = x {
            grads.register::<B>(node.id, ops.state);
        }
        if let Some(node) = last {
            grads.register::<B>(node.id, one);
        }
    }
}
