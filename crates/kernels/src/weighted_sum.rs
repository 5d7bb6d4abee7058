//! The history's sum, `y = sum_k w_k s_k`, in one pass over the states.
//!
//! The learned multistep method reads it in every layer (IIET, equation 8; PCformer, equation 7). Its gradients
//! are `ds_k = w_k dy` and `dw_k = <s_k, dy>`, in one pass as well.

use std::marker::PhantomData;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::retro_forward::RetroForward;
use burn::backend::autodiff::checkpoint::state::BackwardStates;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, BackendTensor, Dispatch, DispatchAutodiffContext, DispatchTensor,
    DispatchTensorKind, ExtensionType, TensorMetadata,
};
use burn::tensor::{Shape, Tensor};

use crate::ops::{FusedOps, is_routed};
use crate::precision::{rounded, widened};
use crate::rows::leading;

/// `sum_k weights[k] * states[k]`.
///
/// # Shapes
///
/// - states and output: all the same
/// - weights: `[states.len()]`
///
/// # Panics
///
/// If there are no states, their shapes differ, or there is not one weight for each.
pub fn weighted_sum<const D: usize>(states: Vec<Tensor<D>>, weights: Tensor<1>) -> Tensor<D> {
    let [n] = weights.dims();
    assert!(
        n > 0 && n == states.len(),
        "weighted_sum: {} states, {n} weights",
        states.len()
    );
    assert!(
        states.iter().all(|s| s.dims() == states[0].dims()),
        "weighted_sum: the states differ in shape"
    );
    let weights = weights.into_dispatch();
    let states = States(states.into_iter().map(Tensor::into_dispatch).collect());
    Tensor::from_dispatch(if is_routed(&weights) {
        <Dispatch as FusedOps>::weighted_sum(states, weights)
    } else {
        forward::<Dispatch>(states, weights)
    })
}

/// Tensors of one shape; a type of its own because an extension takes no `Vec`.
#[derive(Debug, Clone)]
pub struct States<B: Backend>(pub(crate) Vec<FloatTensor<B>>);

impl<B: Backend> ExtensionType<B> for States<B> {
    type Target = States<Dispatch>;

    fn map_to_dispatch<F>(self, map_kind: F, autodiff: DispatchAutodiffContext) -> Self::Target
    where
        F: Fn(BackendTensor<B>) -> DispatchTensorKind,
    {
        let wrap = |tensor| DispatchTensor {
            kind: map_kind(BackendTensor::Float(tensor)),
            autodiff,
        };
        States(self.0.into_iter().map(wrap).collect())
    }

    fn map_from_dispatch<F>(target: Self::Target, unwrap_kind: F) -> Self
    where
        F: Fn(DispatchTensor) -> BackendTensor<B>,
    {
        let unwrap = |tensor| unwrap_kind(tensor).float();
        States(target.0.into_iter().map(unwrap).collect())
    }

    fn routing_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        target.0.first()
    }

    fn routing_float_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        target.0.first()
    }

    fn autodiff_context(target: &Self::Target) -> DispatchAutodiffContext {
        let contexts = target.0.iter().map(|tensor| tensor.autodiff);
        contexts.fold(DispatchAutodiffContext::Disabled, |all, context| {
            all.merge(context)
        })
    }
}

pub(crate) fn forward<B: Backend>(states: States<B>, weights: FloatTensor<B>) -> FloatTensor<B> {
    let weights = widened::<B>(weights);
    let dtype = states.0.first().map(TensorMetadata::dtype);
    let terms = states.0.into_iter().enumerate().map(|(k, state)| {
        let weight = entry::<B>(&weights, k, state.shape().num_dims());
        B::float_mul(widened::<B>(state), weight)
    });
    let sum = terms.reduce(B::float_add);
    let sum = sum.zip(dtype).map(|(sum, dtype)| rounded::<B>(sum, dtype));
    sum.expect("invariant: the public function refuses an empty sum")
}

pub(crate) fn backward<B: Backend>(
    states: States<B>,
    weights: FloatTensor<B>,
    dy: FloatTensor<B>,
) -> (States<B>, FloatTensor<B>) {
    let (rank, dtype) = (dy.shape().num_dims(), dy.dtype());
    let (weights, dy) = (widened::<B>(weights), widened::<B>(dy));
    let (d_states, d_weights) = states
        .0
        .into_iter()
        .enumerate()
        .map(|(k, state)| {
            let along = B::float_sum(B::float_mul(widened::<B>(state), dy.clone()));
            let d_weight = B::float_reshape(along, Shape::from(vec![1]));
            let d_state = B::float_mul(dy.clone(), entry::<B>(&weights, k, rank));
            (rounded::<B>(d_state, dtype), d_weight)
        })
        .unzip();
    (States(d_states), B::float_cat(d_weights, 0))
}

/// `weights[k]` with `rank` axes of length one.
fn entry<B: Backend>(weights: &FloatTensor<B>, k: usize, rank: usize) -> FloatTensor<B> {
    let weight = B::float_slice(weights.clone(), &[leading(k, k + 1)]);
    B::float_reshape(weight, Shape::from(vec![1; rank]))
}

/// The most states of one recorded operation, whose number of parents is part of its type.
const MAX_RECORDED: usize = 16;

/// Longer histories are sums of sums.
pub(crate) fn tracked<B: FusedOps, C: CheckpointStrategy>(
    mut states: States<Autodiff<B, C>>,
    weights: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    let n = states.0.len();
    if n > MAX_RECORDED {
        let rest = States(states.0.split_off(MAX_RECORDED));
        let part = |from, to| Autodiff::<B, C>::float_slice(weights.clone(), &[leading(from, to)]);
        let (first, last) = (part(0, MAX_RECORDED), part(MAX_RECORDED, n));
        let (first, last) = (tracked::<B, C>(states, first), tracked::<B, C>(rest, last));
        return Autodiff::<B, C>::float_add(first, last);
    }
    macro_rules! by_parents {
        ($($states:literal)*) => {
            match n {
                $($states => recorded::<B, C, { $states + 1 }>(states, weights),)*
                _ => unreachable!("split above, and never empty"),
            }
        };
    }
    by_parents!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16)
}

/// One operation with `N - 1` states and the weights as parents, in this order.
fn recorded<B: FusedOps, C: CheckpointStrategy, const N: usize>(
    states: States<Autodiff<B, C>>,
    weights: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    let parents: Vec<_> = states.0.iter().chain([&weights]).collect();
    let nodes: [_; N] = std::array::from_fn(|i| parents[i].node());
    let ids: [NodeId; N] = std::array::from_fn(|i| parents[i].id());
    let prepared = Backward::<B, N>::prepare::<C>(WeightedSumBackward::<N>, nodes)
        .memory_bound()
        .retro_forward(Again::<B, N>(ids, PhantomData))
        .parents(parents.iter().copied())
        .stateful();
    let prepared = match prepared {
        OpsKind::Tracked(mut prepared) => {
            for parent in parents {
                prepared.checkpoint(parent);
            }
            OpsKind::Tracked(prepared)
        }
        untracked => untracked,
    };
    let states = States::<B>(states.0.into_iter().map(|s| s.into_primitive()).collect());
    let y = B::weighted_sum(states, weights.into_primitive());
    match prepared {
        OpsKind::Tracked(prepared) => prepared.finish(ids.to_vec(), y),
        OpsKind::UnTracked(prepared) => prepared.finish(y),
    }
}

#[derive(Debug)]
struct WeightedSumBackward<const N: usize>;

impl<B: FusedOps, const N: usize> Backward<B, N> for WeightedSumBackward<N> {
    /// The parents' identifiers, the weights' last.
    type State = Vec<NodeId>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, kept: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let mut inputs: Vec<_> = ops
            .state
            .into_iter()
            .map(|id| kept.retrieve_node_output::<FloatTensor<B>>(id))
            .collect();
        let weights = inputs.pop().expect("invariant: the weights are a parent");
        let (d_states, d_weights) = B::weighted_sum_backward(States(inputs), weights, dy);
        let gradients = d_states.0.into_iter().chain([d_weights]);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

/// Computes the output again where Burn's checkpointing dropped it.
#[derive(Debug)]
struct Again<B, const N: usize>([NodeId; N], PhantomData<B>);

impl<B: FusedOps, const N: usize> RetroForward for Again<B, N> {
    fn forward(&self, kept: &mut BackwardStates, out: NodeId) {
        let mut inputs: Vec<_> = self
            .0
            .iter()
            .map(|id| kept.get_state::<FloatTensor<B>>(id))
            .collect();
        let weights = inputs.pop().expect("invariant: the weights are a parent");
        kept.save(out, B::weighted_sum(States(inputs), weights));
    }
}
