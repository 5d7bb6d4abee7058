//! One tensor for several uses, whose gradients are summed in place.
//!
//! In `x + F(norm(x))` the tensor x has two uses, and in attention a norm's output has three projections. Burn sums
//! the gradients of such a tensor with its own addition as they arrive. Here each use is a copy, which shares the
//! tensor's memory, and hands its gradient to a sum that all copies share: [`Add`] sums them with all threads.
//!
//! ```text
//! x -> join -> copy 1, .., copy n        backward: copies add to the sum, join takes it
//! ```
//!
//! The join is the parent of all copies, so its backward pass follows theirs. A copy that no loss depends on has no
//! backward pass, and its gradient is not missed.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::retro_forward::RetroForward;
use burn::backend::autodiff::checkpoint::state::BackwardStates;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};
use burn::tensor::Tensor;

use super::add::Add;
use super::weighted_sum::States;
use crate::route::{composed, operation, routed};

/// `N` copies of x, which share its memory.
///
/// # Shapes
///
/// - x and each copy: all equal
pub fn fan_out<const D: usize, const N: usize>(x: Tensor<D>) -> [Tensor<D>; N] {
    let x = x.into_dispatch();
    let States(copies) = routed!(FanOut::fan_out(x, N), else forward);
    let copies: Vec<_> = copies.into_iter().map(Tensor::from_dispatch).collect();
    let copies: Result<_, _> = copies.try_into();
    copies.expect("invariant: as many as asked for")
}

operation! {
    /// Copies over a backend's own tensors.
    pub trait FanOut: Backend {
        fn fan_out(x: FloatTensor<Self>, n: usize) -> States<Self> {
            forward::<Self>(x, n)
        }
    }
}

composed!(FanOut: NdArray, Cube);

#[cfg(feature = "flex")]
impl FanOut for burn::backend::Flex {}

fn forward<B: Backend>(x: FloatTensor<B>, n: usize) -> States<B> {
    States(vec![x; n])
}

impl<B: Add + FanOut, C: CheckpointStrategy> FanOut for Autodiff<B, C> {
    fn fan_out(x: FloatTensor<Self>, n: usize) -> States<Self> {
        let sum = GradientSum::<B>::default();
        let join = identity::<B, C, _>(Join, sum.clone(), x);
        let copy = |_| identity::<B, C, _>(Use, sum.clone(), join.clone());
        States((0..n).map(copy).collect())
    }
}

/// The sum of the copies' gradients so far.
#[derive(Debug, Clone, Default)]
struct GradientSum<B: Backend>(Arc<Mutex<Option<FloatTensor<B>>>>);

impl<B: Add> GradientSum<B> {
    fn add(&self, gradient: FloatTensor<B>) {
        let mut sum = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *sum = Some(match sum.take() {
            Some(sum) => B::add(sum, gradient),
            None => gradient,
        });
    }

    fn take(&self) -> Option<FloatTensor<B>> {
        let mut sum = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sum.take()
    }
}

/// x, recorded with a backward pass for its gradient.
fn identity<B, C, Step>(
    step: Step,
    sum: GradientSum<B>,
    x: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>>
where
    B: Add,
    C: CheckpointStrategy,
    Step: Backward<B, 1, State = GradientSum<B>>,
{
    let again = Again::<B> {
        x: x.id(),
        backend: PhantomData,
    };
    let prepared = step
        .prepare::<C>([x.node()])
        .memory_bound()
        .retro_forward(again)
        .parents([&x])
        .stateful();
    match prepared {
        OpsKind::Tracked(prepared) => prepared.finish(sum, x.into_primitive()),
        // Without a node, which would stay in the graph of what is tracked.
        OpsKind::UnTracked(_) => x,
    }
}

/// The parent of the copies.
#[derive(Debug)]
struct Join;

impl<B: Add> Backward<B, 1> for Join {
    type State = GradientSum<B>;

    /// Its own gradient is never registered: the copies' backward passes have put it into the sum.
    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        if let ([Some(x)], Some(gradient)) = (ops.parents, ops.state.take()) {
            grads.register::<B>(x.id, gradient);
        }
    }
}

/// One use of the tensor.
#[derive(Debug)]
struct Use;

impl<B: Add> Backward<B, 1> for Use {
    type State = GradientSum<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        ops.state.add(grads.consume::<B>(&ops.node));
    }
}

/// Burn's checkpointing recomputes x, and a copy is x.
#[derive(Debug)]
struct Again<B> {
    x: NodeId,
    backend: PhantomData<B>,
}

impl<B: Backend> RetroForward for Again<B> {
    fn forward(&self, states: &mut BackwardStates, out: NodeId) {
        let x = states.get_state::<FloatTensor<B>>(&self.x);
        states.save(out, x);
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{DType, Device, Distribution, Tensor};

    use super::*;
    use crate::add;

    fn leaf(dtype: DType) -> Tensor<2> {
        let device = Device::default();
        device.seed(5);
        // Several blocks of the sum, and a part of one.
        let normal = Distribution::Normal(0.0, 1.0);
        Tensor::<2>::random([130, 257], normal, &device).cast(dtype)
    }

    /// The gradient to x of a function of it.
    fn gradient(x: &Tensor<2>, f: impl Fn(Tensor<2>) -> Tensor<2>) -> Vec<f32> {
        let x = x.clone().autodiff().require_grad();
        let grads = f(x.clone()).sum().backward();
        let dx = x.grad(&grads).expect("a gradient");
        dx.try_into_vec_as::<f32>().expect("floats")
    }

    #[test]
    fn gradients_of_all_uses_are_summed() {
        let x = leaf(DType::F32);
        let y = x.clone().flip([0]);
        let expected = gradient(&x, |x| {
            x.clone() * y.clone() + x.clone().exp() + x.mul_scalar(3.0)
        });
        let found = gradient(&x, |x| {
            let [a, b, c] = fan_out(x);
            add(add(a * y.clone(), b.exp()), c.mul_scalar(3.0))
        });
        for (found, expected) in found.into_iter().zip(expected) {
            assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1.0));
        }
    }

    #[test]
    fn a_use_without_a_loss_adds_nothing() {
        let x = leaf(DType::F32);
        let found = gradient(&x, |x| {
            let [a, b, _] = fan_out(x);
            let _ = b.exp();
            let [a, _] = fan_out(a);
            a.mul_scalar(2.0)
        });
        assert!(found.into_iter().all(|dx| dx == 2.0));
    }

    #[test]
    fn half_precision_sums_are_rounded_once_a_sum() {
        for dtype in [DType::BF16, DType::F16] {
            let x = leaf(dtype);
            let sums = |sum: fn(Tensor<2>, Tensor<2>) -> Tensor<2>| {
                let y = x.clone().flip([0]);
                let bits = sum(x.clone(), y).try_into_vec_as::<f32>();
                bits.expect("floats")
            };
            assert_eq!(sums(add), sums(|x, y| x + y), "{dtype:?}");
            let found = gradient(&x, |x| {
                let [a, b] = fan_out(x);
                add(a.mul_scalar(3.0), b.mul_scalar(-1.0))
            });
            assert!(found.into_iter().all(|dx| dx == 2.0), "{dtype:?}");
        }
    }

    #[test]
    fn constants_are_copied_as_they_are() {
        let x = leaf(DType::F32);
        let [a, b] = fan_out(x.clone());
        assert!(!a.is_autodiff());
        let values = |x: Tensor<2>| x.try_into_vec_as::<f32>().expect("floats");
        assert_eq!([a, b].map(values), [x.clone(), x].map(values));
    }
}
