//! The history's sum, `y = sum_k w_k s_k`, in one pass over the states.
//!
//! The learned multistep method evaluates it in every layer (IIET, equation 8; PCformer, equation 7). Its
//! gradients are `ds_k = w_k dy` and `dw_k = <s_k, dy>`, also computed in one pass.

#[cfg(feature = "flex")]
mod flex;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, BackendTensor, Dispatch, DispatchAutodiffContext, DispatchTensor,
    DispatchTensorKind, ExtensionType, TensorMetadata,
};
use burn::tensor::{Shape, Tensor};

use super::rows::leading;
use crate::precision::{rounded, widened};
use crate::record::MemoryBound;
use crate::route::{composed, operation, routed};

/// `sum_k weights[k] * states[k]`.
///
/// # Shapes
///
/// - states and output: all equal
/// - weights: `[states.len()]`
///
/// # Panics
///
/// If there are no states, their shapes differ, or the numbers of weights and states differ.
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
    Tensor::from_dispatch(routed!(WeightedSum::weighted_sum(weights, states), else forward))
}

operation! {
    /// The sum over a backend's own tensors.
    pub trait WeightedSum: Backend {
        fn weighted_sum(
            weights: FloatTensor<Self>,
            #[extension_type] states: States<Self>,
        ) -> FloatTensor<Self> {
            forward::<Self>(weights, states)
        }

        /// Gradients to the weights and to the states.
        fn weighted_sum_backward(
            weights: FloatTensor<Self>,
            #[extension_type] states: States<Self>,
            dy: FloatTensor<Self>,
        ) -> (FloatTensor<Self>, States<Self>) {
            backward::<Self>(weights, states, dy)
        }
    }
}

composed!(WeightedSum: NdArray, Cube);

/// Tensors of one shape; a separate type because an extension takes no `Vec`.
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

pub(super) fn forward<B: Backend>(weights: FloatTensor<B>, states: States<B>) -> FloatTensor<B> {
    let weights = widened::<B>(weights);
    let dtype = states.0.first().map(TensorMetadata::dtype);
    let terms = states.0.into_iter().enumerate().map(|(k, state)| {
        let weight = entry::<B>(&weights, k, state.shape().num_dims());
        B::float_mul(widened::<B>(state), weight)
    });
    let sum = terms.reduce(B::float_add);
    let sum = sum.zip(dtype).map(|(sum, dtype)| rounded::<B>(sum, dtype));
    sum.expect("invariant: the public function rejects an empty sum")
}

pub(super) fn backward<B: Backend>(
    weights: FloatTensor<B>,
    states: States<B>,
    dy: FloatTensor<B>,
) -> (FloatTensor<B>, States<B>) {
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
    (B::float_cat(d_weights, 0), States(d_states))
}

/// `weights[k]` with `rank` axes of length one.
fn entry<B: Backend>(weights: &FloatTensor<B>, k: usize, rank: usize) -> FloatTensor<B> {
    let weight = B::float_slice(weights.clone(), &[leading(k, k + 1)]);
    B::float_reshape(weight, Shape::from(vec![1; rank]))
}

/// The maximum number of states of one recorded operation, whose number of parents is part of its type.
const MAX_RECORDED: usize = 16;

impl<B: WeightedSum, C: CheckpointStrategy> WeightedSum for Autodiff<B, C> {
    /// Longer histories are computed as sums of sums.
    fn weighted_sum(
        weights: FloatTensor<Self>,
        States(mut states): States<Self>,
    ) -> FloatTensor<Self> {
        let n = states.len();
        if n > MAX_RECORDED {
            let rest = States(states.split_off(MAX_RECORDED));
            let part = |from, to| Self::float_slice(weights.clone(), &[leading(from, to)]);
            let first = Self::weighted_sum(part(0, MAX_RECORDED), States(states));
            let last = Self::weighted_sum(part(MAX_RECORDED, n), rest);
            return Self::float_add(first, last);
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
}

/// One operation whose `N` inputs are the states and, last, the weights.
fn recorded<B: WeightedSum, C: CheckpointStrategy, const N: usize>(
    mut inputs: Vec<FloatTensor<Autodiff<B, C>>>,
    weights: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    inputs.push(weights);
    let inputs: Result<[_; N], _> = inputs.try_into();
    Sum.record::<C>(inputs.expect("invariant: as many inputs as the caller matched"))
}

#[derive(Debug, Clone)]
struct Sum;

/// The weights and the states of the inputs.
fn parted<B: Backend, const N: usize>(inputs: [FloatTensor<B>; N]) -> (FloatTensor<B>, States<B>) {
    let mut states = Vec::from(inputs);
    let weights = states.pop();
    (
        weights.expect("invariant: the weights are an input"),
        States(states),
    )
}

impl<B: WeightedSum, const N: usize> MemoryBound<B, N, N> for Sum {
    fn forward(&self, inputs: [FloatTensor<B>; N]) -> FloatTensor<B> {
        let (weights, states) = parted::<B, N>(inputs);
        B::weighted_sum(weights, states)
    }

    fn backward(self, inputs: [FloatTensor<B>; N], dy: FloatTensor<B>) -> [FloatTensor<B>; N] {
        let (weights, states) = parted::<B, N>(inputs);
        let (d_weights, States(mut gradients)) = B::weighted_sum_backward(weights, states, dy);
        gradients.push(d_weights);
        let gradients: Result<[_; N], _> = gradients.try_into();
        gradients.expect("invariant: a gradient for each input")
    }
}
