//! One folder for each operation: its formula, its public function, the bodies composed of Burn's
//! primitives, the recorded backward pass, and a kernel for each backend that has one.
//!
//! How a call is dispatched to these is in [`crate::route`].

#![cfg_attr(
    not(any(
        feature = "flex",
        feature = "ndarray",
        feature = "wgpu",
        feature = "vulkan",
        feature = "cuda"
    )),
    allow(
        unused_variables,
        reason = "without features the macro routes to no backend"
    )
)]
#![cfg_attr(
    feature = "ndarray",
    allow(deprecated, reason = "Burn deprecates ndarray, but still includes it")
)]

pub(crate) mod adamw;
pub(crate) mod add;
pub(crate) mod attention;
pub(crate) mod backward_from;
pub(crate) mod cached_attention;
pub(crate) mod cross_entropy;
pub(crate) mod distillation;
pub(crate) mod embedding;
pub(crate) mod fan_out;
pub(crate) mod kept_rows;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod log_softmax;
pub(crate) mod packed_linear;
pub(crate) mod pullback;
pub(crate) mod rms_norm;
pub(crate) mod rope;
mod rows;
pub(crate) mod swiglu;
pub(crate) mod weighted_sum;

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::backend::{Dispatch, DispatchTensor};
    use burn::tensor::{Device, Distribution, Int, Tensor, Tolerance};

    use super::attention::{Attention, Mix, Visibility};
    use super::cross_entropy::LinearCrossEntropy;
    use super::layer_norm::LayerNorm;
    use super::rms_norm::RmsNorm;
    use super::rope::Rotate;
    use super::swiglu::Swiglu;
    use super::weighted_sum::{States, WeightedSum};
    use super::*;
    use crate::DropoutMask;
    use crate::route::is_routed;

    /// The value, and the gradient to a leaf, of a function that passes the leaf to the dispatcher.
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
            // Flattened, for any rank.
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

    /// The path for a backend of Burn that is not enabled in this crate.
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
            |x| <Dispatch as LayerNorm>::layer_norm(x, gamma.clone(), beta.clone(), 1e-5),
            |x| layer_norm::forward::<Dispatch>(x, gamma.clone(), beta.clone(), 1e-5),
        );
        assert_same(
            matrix(4),
            |x| Dispatch::weighted_sum(row_of(&device), States(vec![x, up.clone()])),
            |x| weighted_sum::forward::<Dispatch>(row_of(&device), States(vec![x, up.clone()])),
        );
        let heads = |n| Tensor::<4>::random([2, n, 5, 6], normal, &device);
        let (k, v) = (heads(2).into_dispatch(), heads(2).into_dispatch());
        for visible in [Visibility::Causal, Visibility::keys([3, 5])] {
            for dropout in [None, Some(DropoutMask::new([1, 2], [3, 4], 0.3))] {
                let mix = Mix {
                    visible: visible.clone(),
                    scale: 0.4,
                    dropout,
                };
                assert_same(
                    heads(4),
                    |x| Dispatch::attend(x, k.clone(), v.clone(), &mix).0,
                    |x| attention::forward::<Dispatch>(x, k.clone(), v.clone(), &mix).0,
                );
            }
        }
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
