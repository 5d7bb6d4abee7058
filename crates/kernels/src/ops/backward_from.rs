//! A backward pass that starts at several tensors with given gradients.
//!
//! Burn's backward pass starts at one scalar with gradient one. To differentiate a part of a computation
//! whose output gradients are known, as when a layer is recomputed, its outputs are linked to a scalar: `o_k
//! = seed(x_k, o_{k-1})` computes nothing, but in the backward pass each link passes the given gradient to
//! `x_k`, where gradients are summed as in any backward pass.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};
use burn::tensor::{self, Tensor};

use crate::route::{composed, operation, routed};

/// The gradients to everything that the outputs were computed from, given the outputs' gradients: the
/// derivative of the sum over outputs of `<output, gradient>`.
///
/// # Shapes
///
/// - each output and its gradient: equal
///
/// # Panics
///
/// If there are no outputs, none is tracked, or an output and its gradient differ in shape.
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
            Some(Tensor::from_dispatch(routed!(
                Seed::seed(output, last, gradient),
                else forward
            )))
        });
    links
        .expect("backward_from: there are no outputs")
        .backward()
}

operation! {
    /// A link of the chain over a backend's own tensors.
    pub trait Seed: Backend {
        /// Returns `last`; in the backward pass `x` receives `gradient`.
        fn seed(
            x: FloatTensor<Self>,
            last: FloatTensor<Self>,
            gradient: FloatTensor<Self>,
        ) -> FloatTensor<Self> {
            forward::<Self>(x, last, gradient)
        }
    }
}

composed!(Seed: NdArray, Cube);

// No computation.
#[cfg(feature = "flex")]
impl Seed for burn::backend::Flex {}

/// `last + <x, gradient>`: equal gradients, computed with arithmetic.
pub(super) fn forward<B: Backend>(
    x: FloatTensor<B>,
    last: FloatTensor<B>,
    gradient: FloatTensor<B>,
) -> FloatTensor<B> {
    let along = B::float_sum(B::float_mul(x, gradient));
    B::float_add(last, along)
}

impl<B: Seed, C: CheckpointStrategy> Seed for Autodiff<B, C> {
    fn seed(
        x: FloatTensor<Self>,
        last: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
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
}

/// Recorded separately and not as in [`crate::record`], because the gradient to `x` is given and is not a
/// product.
#[derive(Debug)]
struct SeedBackward;

impl<B: Seed> Backward<B, 2> for SeedBackward {
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
