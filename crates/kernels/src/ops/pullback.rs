//! A gradient that is computed by a function.
//!
//! The value of the operation is its input. In the backward pass the gradient to the input is what a
//! function makes of the gradient to the output. The function may differentiate something of its own,
//! as the gradient at a fixed point does when it iterates with the Jacobian of a block.

use std::fmt;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, BackendTensor, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind,
};
use burn::tensor::Tensor;

use crate::route::{composed, operation, routed};

/// `x`, whose gradient is `pullback` of the gradient to the result.
///
/// # Shapes
///
/// - input, output, and what the function takes and returns: all the same
///
/// On a backend that this crate is compiled without (see the crate's features) the function is never
/// called, and the gradient passes as it is.
pub fn with_pullback<const D: usize>(
    x: Tensor<D>,
    pullback: impl Fn(Tensor<D>) -> Tensor<D> + Send + Sync + 'static,
) -> Tensor<D> {
    let x = x.into_dispatch();
    let function = Function(Arc::new(move |dy| {
        pullback(Tensor::from_dispatch(dy)).inner().into_dispatch()
    }));
    Tensor::from_dispatch(routed!(Pullback::with_pullback(x, function), else forward))
}

/// The function, on tensors without autodiff.
#[derive(Clone)]
pub struct Function(Arc<dyn Fn(DispatchTensor) -> DispatchTensor + Send + Sync>);

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Function")
    }
}

operation! {
    /// The identity over a backend's own tensors.
    pub trait Pullback: Backend {
        /// `x`, and in the backward pass the function's gradient.
        fn with_pullback(x: FloatTensor<Self>, function: Function) -> FloatTensor<Self> {
            forward::<Self>(x, function)
        }
    }
}

composed!(Pullback: NdArray, Cube);

#[cfg(feature = "flex")]
impl Pullback for burn::backend::Flex {}

fn forward<B: Backend>(x: FloatTensor<B>, _: Function) -> FloatTensor<B> {
    x
}

/// A backend whose tensors can leave it and come back, as the function takes them.
pub trait OnDispatch: Backend {
    /// A tensor as the dispatcher has it.
    fn kind(x: FloatTensor<Self>) -> DispatchTensorKind;

    /// A tensor of this backend, as it comes back; `None` for another's.
    fn tensor(x: DispatchTensorKind) -> Option<FloatTensor<Self>>;
}

macro_rules! on_dispatch {
    ($backend:ident) => {
        impl OnDispatch for burn::backend::$backend {
            fn kind(x: FloatTensor<Self>) -> DispatchTensorKind {
                DispatchTensorKind::$backend(BackendTensor::Float(x))
            }

            fn tensor(x: DispatchTensorKind) -> Option<FloatTensor<Self>> {
                match x {
                    DispatchTensorKind::$backend(BackendTensor::Float(x)) => Some(x),
                    _ => None,
                }
            }
        }
    };
}

#[cfg(feature = "flex")]
on_dispatch!(Flex);
#[cfg(feature = "ndarray")]
on_dispatch!(NdArray);
#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "cuda"))]
on_dispatch!(Cube);

impl<B: Pullback + OnDispatch, C: CheckpointStrategy> Pullback for Autodiff<B, C> {
    fn with_pullback(x: FloatTensor<Self>, function: Function) -> FloatTensor<Self> {
        let prepared = Backward::<B, 1>::prepare::<C>(PullbackBackward, [x.node()])
            .compute_bound()
            .stateful();
        match prepared {
            OpsKind::Tracked(prepared) => prepared.finish(function, x.into_primitive()),
            OpsKind::UnTracked(prepared) => prepared.finish(x.into_primitive()),
        }
    }
}

#[derive(Debug)]
struct PullbackBackward;

impl<B: Pullback + OnDispatch> Backward<B, 1> for PullbackBackward {
    type State = Function;

    fn backward(self, ops: Ops<Function, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let [Some(x)] = ops.parents else { return };
        let autodiff = DispatchAutodiffContext::Disabled;
        let kind = B::kind(dy);
        let Function(function) = ops.state;
        let dx = B::tensor(function(DispatchTensor { kind, autodiff }).kind)
            .expect("invariant: a gradient stays on its backend");
        grads.register::<B>(x.id, dx);
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn values(x: Tensor<1>) -> Vec<f32> {
        x.try_into_vec_as::<f32>().expect("floats")
    }

    #[test]
    fn the_value_is_the_input_and_the_gradient_the_functions() {
        let device = Device::default();
        let x = Tensor::<1>::from_data([1.0f32, -2.0, 3.0], &device);
        let untracked = with_pullback(x.clone(), |dy| dy * 10.0);
        assert_eq!(values(untracked), [1.0, -2.0, 3.0]);

        let leaf = x.autodiff().require_grad();
        let squares = leaf.clone() * leaf.clone();
        // The function differentiates something itself: u^3 at u = dy.
        let y = with_pullback(squares, |dy| {
            let u = dy.autodiff().require_grad();
            let gradients = u.clone().powi_scalar(3).sum().backward();
            u.grad(&gradients).expect("a gradient")
        });
        let sum = (y.clone() * 2.0).sum();
        assert_eq!(values(y.inner()), [1.0, 4.0, 9.0]);
        // dy = 2, so the function's is 3 * 2^2 = 12, and that to x is 12 * 2x.
        let gradients = sum.backward();
        assert_eq!(
            values(leaf.grad(&gradients).expect("a gradient")),
            [24.0, -48.0, 72.0]
        );
    }
}
