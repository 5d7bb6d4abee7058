//! The seam to Burn: all fused operations as one backend trait, and who runs what.
//!
//! [`FusedOps`] has a default body of Burn primitives for everything. `Flex` overrides them with
//! its kernels where the tensors are f32; `Autodiff` overrides the forward operations with ones
//! that record their backward pass. One trait, rather than one for each operation, so that the
//! backends are listed once.

#![cfg_attr(
    not(any(
        feature = "flex",
        feature = "ndarray",
        feature = "wgpu",
        feature = "vulkan",
        feature = "cuda"
    )),
    allow(unused_variables, reason = "the macro routes to no backend at all")
)]
#![cfg_attr(
    feature = "ndarray",
    allow(deprecated, reason = "Burn means to drop ndarray, but still has it")
)]

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, DispatchTensor, DispatchTensorKind, backend_extension};

use crate::adamw::{self, AdamWStep};
use crate::distillation::DistillationMix;
use crate::weighted_sum::States;
use crate::{
    attention, backward_from, cross_entropy, distillation, embedding, layer_norm, linear, rms_norm,
    rope, swiglu, weighted_sum,
};

/// The fused operations over a backend's own tensors; their public faces say what they compute.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(any(feature = "wgpu", feature = "vulkan", feature = "cuda")),
    Autodiff
)]
pub trait FusedOps: Backend {
    fn embed(weight: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        embedding::forward::<Self>(weight, ids)
    }

    fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        linear::forward::<Self>(x, weight)
    }

    /// The gradient to `weight`.
    fn weight_gradient(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        linear::weight_gradient::<Self>(x, dy)
    }

    /// The gradient to `weight`, added to the sum of those so far.
    fn add_weight_gradient(
        sum: FloatTensor<Self>,
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        Self::float_add(sum, linear::weight_gradient::<Self>(x, dy))
    }

    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        swiglu::forward::<Self>(gate, up)
    }

    fn swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        swiglu::backward::<Self>(gate, up, dy)
    }

    fn rms_norm(x: FloatTensor<Self>, gamma: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        rms_norm::forward::<Self>(x, gamma, eps)
    }

    /// Gradients to `x` and `gamma`.
    fn rms_norm_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        rms_norm::backward::<Self>(x, gamma, dy, eps)
    }

    fn layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        layer_norm::forward::<Self>(x, gamma, beta, eps)
    }

    /// Gradients to `x`, `gamma` and `beta`.
    fn layer_norm_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        layer_norm::backward::<Self>(x, gamma, dy, eps)
    }

    /// By the tables' angles, or by their negatives: the backward pass of the one is the other.
    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        inverse: bool,
    ) -> FloatTensor<Self> {
        rope::forward::<Self>(x, cos, sin, inverse)
    }

    fn weighted_sum(
        #[extension_type] states: States<Self>,
        weights: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        weighted_sum::forward::<Self>(states, weights)
    }

    /// Gradients to the states and to `weights`.
    fn weighted_sum_backward(
        #[extension_type] states: States<Self>,
        weights: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (States<Self>, FloatTensor<Self>) {
        weighted_sum::backward::<Self>(states, weights, dy)
    }

    /// The mixed values, and the logarithm of each row's softmax denominator
    /// `[batch, n_heads, seq]`.
    fn causal_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        scale: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        attention::forward::<Self>(q, k, v, scale)
    }

    /// Gradients to `q`, `k` and `v`.
    fn causal_attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        scale: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        attention::backward::<Self>(q, k, v, out, lse, dy, scale)
    }

    fn linear_cross_entropy(
        hidden: FloatTensor<Self>,
        projection: FloatTensor<Self>,
        targets: IntTensor<Self>,
        token_weights: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        cross_entropy::forward::<Self>(hidden, projection, targets, token_weights)
    }

    /// The loss, and its gradients to `hidden` and `projection`.
    fn linear_cross_entropy_with_gradients(
        hidden: FloatTensor<Self>,
        projection: FloatTensor<Self>,
        targets: IntTensor<Self>,
        token_weights: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        cross_entropy::with_gradients::<Self>(hidden, projection, targets, token_weights)
    }

    /// The loss, and its two parts.
    fn linear_distillation(
        hidden: FloatTensor<Self>,
        projection: FloatTensor<Self>,
        teacher_hidden: FloatTensor<Self>,
        teacher_projection: FloatTensor<Self>,
        targets: IntTensor<Self>,
        token_weights: FloatTensor<Self>,
        mix: DistillationMix,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (student, teacher) = ([hidden, projection], [teacher_hidden, teacher_projection]);
        distillation::forward::<Self>(student, teacher, targets, token_weights, mix)
    }

    /// The loss, its two parts, and its gradients to `hidden` and `projection`.
    fn linear_distillation_with_gradients(
        hidden: FloatTensor<Self>,
        projection: FloatTensor<Self>,
        teacher_hidden: FloatTensor<Self>,
        teacher_projection: FloatTensor<Self>,
        targets: IntTensor<Self>,
        token_weights: FloatTensor<Self>,
        mix: DistillationMix,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    ) {
        let (student, teacher) = ([hidden, projection], [teacher_hidden, teacher_projection]);
        distillation::with_gradients::<Self>(student, teacher, targets, token_weights, mix)
    }

    /// `x` times a tensor of one element, at the end of the loss's backward pass.
    fn scaled(x: FloatTensor<Self>, factor: FloatTensor<Self>) -> FloatTensor<Self> {
        cross_entropy::scaled::<Self>(x, factor)
    }

    /// A link of a chain that hands `x` its gradient in the backward pass.
    fn seed(
        last: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        backward_from::composed::<Self>(last, x, gradient)
    }

    /// The parameter and its two moments after a step.
    fn adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        adamw::updated::<Self>(parameter, gradient, first, second, step)
    }

    fn sum_of_squares(x: FloatTensor<Self>) -> FloatTensor<Self> {
        adamw::squares::<Self>(x)
    }
}

#[cfg(feature = "ndarray")]
impl FusedOps for burn::backend::NdArray {}

#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "cuda"))]
impl FusedOps for burn::backend::Cube {}

impl<B: FusedOps, C: CheckpointStrategy> FusedOps for Autodiff<B, C> {
    fn seed(
        last: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        backward_from::tracked::<B, C>(last, x, gradient)
    }

    fn embed(weight: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        embedding::tracked::<B, C>(weight, ids)
    }

    fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        linear::tracked::<B, C>(x, weight)
    }

    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        swiglu::tracked::<B, C>(gate, up)
    }

    fn rms_norm(x: FloatTensor<Self>, gamma: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        rms_norm::tracked::<B, C>(x, gamma, eps)
    }

    fn layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        layer_norm::tracked::<B, C>(x, gamma, beta, eps)
    }

    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        inverse: bool,
    ) -> FloatTensor<Self> {
        rope::tracked::<B, C>(x, cos, sin, inverse)
    }

    fn weighted_sum(states: States<Self>, weights: FloatTensor<Self>) -> FloatTensor<Self> {
        weighted_sum::tracked::<B, C>(states, weights)
    }

    fn causal_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        scale: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        attention::tracked::<B, C>(q, k, v, scale).into()
    }

    fn linear_cross_entropy(
        hidden: FloatTensor<Self>,
        projection: FloatTensor<Self>,
        targets: IntTensor<Self>,
        token_weights: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        cross_entropy::tracked::<B, C>(hidden, projection, targets, token_weights)
    }

    fn linear_distillation(
        hidden: FloatTensor<Self>,
        projection: FloatTensor<Self>,
        teacher_hidden: FloatTensor<Self>,
        teacher_projection: FloatTensor<Self>,
        targets: IntTensor<Self>,
        token_weights: FloatTensor<Self>,
        mix: DistillationMix,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (student, teacher) = ([hidden, projection], [teacher_hidden, teacher_projection]);
        distillation::tracked::<B, C>(student, teacher, targets, token_weights, mix).into()
    }
}

/// Whether the tensor's backend is one that [`FusedOps`] is compiled for.
pub(crate) fn is_routed(tensor: &DispatchTensor) -> bool {
    fn named(kind: &DispatchTensorKind) -> bool {
        match kind {
            #[cfg(feature = "flex")]
            DispatchTensorKind::Flex(_) => true,
            #[cfg(feature = "ndarray")]
            DispatchTensorKind::NdArray(_) => true,
            #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "cuda"))]
            DispatchTensorKind::Cube(_) => true,
            DispatchTensorKind::Autodiff(inner) => named(inner),
            #[allow(unreachable_patterns, reason = "depends on the backends compiled in")]
            _ => false,
        }
    }
    named(&tensor.kind)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::backend::{Dispatch, DispatchTensor};
    use burn::tensor::{Device, Distribution, Int, Tensor, Tolerance};

    use super::*;

    /// The value, and the gradient to a leaf, of a function that takes the leaf to the dispatcher.
    fn run<const D: usize>(
        leaf: &Tensor<D>,
        f: impl Fn(DispatchTensor) -> DispatchTensor,
    ) -> (Tensor<1>, Tensor<D>) {
        let leaf = leaf.clone().autodiff().require_grad();
        let y = Tensor::<1>::from_dispatch(f(leaf.clone().into_dispatch()));
        let grads = y.clone().powi_scalar(2).sum().backward();
        let gradient = leaf.grad(&grads).expect("a gradient");
        (y.inner(), gradient)
    }

    fn assert_same<const D: usize>(
        leaf: Tensor<D>,
        routed: impl Fn(DispatchTensor) -> DispatchTensor,
        unrouted: impl Fn(DispatchTensor) -> DispatchTensor,
    ) {
        let flat = |y: DispatchTensor| {
            // Whatever the rank, as one axis.
            let n = burn::backend::TensorMetadata::shape(&y).num_elements();
            let shape = burn::tensor::Shape::from(vec![n]);
            <Dispatch as burn::backend::ops::FloatTensorOps<_>>::float_reshape(y, shape)
        };
        let (y, dx) = run(&leaf, |x| flat(routed(x)));
        let (expected, expected_dx) = run(&leaf, |x| flat(unrouted(x)));
        let tolerance = Tolerance::<f32>::rel_abs(1e-4, 1e-4);
        y.into_data()
            .assert_approx_eq(&expected.into_data(), tolerance);
        dx.into_data()
            .assert_approx_eq(&expected_dx.into_data(), tolerance);
    }

    /// What runs where Burn has a backend that this crate was not told of.
    #[test]
    fn the_composed_bodies_run_on_the_dispatcher() {
        let device = Device::default();
        device.seed(3);
        let normal = Distribution::Normal(0.0, 1.0);
        let matrix = |rows| Tensor::<2>::random([rows, 6], normal, &device);
        let row = || Tensor::<1>::random([6], normal, &device).into_dispatch();
        let (up, gamma, beta) = (matrix(4).into_dispatch(), row(), row());
        assert!(is_routed(&up));
        assert_same(
            matrix(4),
            |x| Dispatch::swiglu(x, up.clone()),
            |x| swiglu::forward::<Dispatch>(x, up.clone()),
        );
        assert_same(
            matrix(4),
            |x| Dispatch::rms_norm(x, gamma.clone(), 1e-5),
            |x| rms_norm::forward::<Dispatch>(x, gamma.clone(), 1e-5),
        );
        assert_same(
            matrix(4),
            |x| <Dispatch as FusedOps>::layer_norm(x, gamma.clone(), beta.clone(), 1e-5),
            |x| layer_norm::forward::<Dispatch>(x, gamma.clone(), beta.clone(), 1e-5),
        );
        assert_same(
            matrix(4),
            |x| Dispatch::weighted_sum(States(vec![x, up.clone()]), row_of(&device)),
            |x| weighted_sum::forward::<Dispatch>(States(vec![x, up.clone()]), row_of(&device)),
        );
        let heads = |n| Tensor::<4>::random([2, n, 5, 6], normal, &device);
        let (k, v) = (heads(2).into_dispatch(), heads(2).into_dispatch());
        assert_same(
            heads(4),
            |x| Dispatch::causal_attention(x, k.clone(), v.clone(), 0.4).0,
            |x| attention::forward::<Dispatch>(x, k.clone(), v.clone(), 0.4).0,
        );
        let table = || Tensor::<2>::random([5, 3], normal, &device).into_dispatch();
        let (cos, sin) = (table(), table());
        assert_same(
            heads(4),
            |x| Dispatch::rotate(x, cos.clone(), sin.clone(), false),
            |x| rope::forward::<Dispatch>(x, cos.clone(), sin.clone(), false),
        );
        let projection = Tensor::<2>::random([6, 9], normal, &device).into_dispatch();
        let targets = Tensor::<1, Int>::from_data([0, 8, 3, 3], &device).into_dispatch();
        let weights = Tensor::<1>::from_data([1.0, 0.0, 2.0, 0.5], &device).into_dispatch();
        let rest = || (projection.clone(), targets.clone(), weights.clone());
        assert_same(
            matrix(4),
            |x| {
                let (projection, targets, weights) = rest();
                Dispatch::linear_cross_entropy(x, projection, targets, weights)
            },
            |x| {
                let (projection, targets, weights) = rest();
                cross_entropy::forward::<Dispatch>(x, projection, targets, weights)
            },
        );
    }

    /// Two weights.
    fn row_of(device: &Device) -> DispatchTensor {
        Tensor::<1>::from_data([0.3, -1.2], device).into_dispatch()
    }
}
