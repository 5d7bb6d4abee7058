use burn::tensor::{DType, Device, Tensor};
use iiet_kernels::backward_from;

use crate::check::random;

/// `x` is an output and also an input of two others.
#[test]
fn equals_the_derivative_of_the_inner_products() {
    let device = Device::default().autodiff();
    for dtype in [DType::F32, DType::F64] {
        let leaf = |seed| random(12, seed).on(dtype, &device);
        let given = |seed| random(12, seed).constant().on(dtype, &device);
        let outputs = |x: &Tensor<1>, w: &Tensor<1>| {
            let y = x.clone() * w.clone();
            [y.clone(), x.clone(), (y + x.clone()).tanh()]
        };
        let (x, w) = (leaf(1), leaf(2));
        let pairs = outputs(&x, &w)
            .into_iter()
            .zip([given(3), given(4), given(5)]);
        let grads = backward_from(pairs);
        let actual = [x.grad(&grads).unwrap(), w.grad(&grads).unwrap()];

        let (x, w) = (leaf(1), leaf(2));
        let terms = outputs(&x, &w)
            .into_iter()
            .zip([given(3), given(4), given(5)]);
        let sum = terms.map(|(y, g)| (y * g).sum()).reduce(|a, b| a + b);
        let grads = sum.unwrap().backward();
        let expected = [x.grad(&grads).unwrap(), w.grad(&grads).unwrap()];
        for (actual, expected) in actual.into_iter().zip(expected) {
            let tolerance = burn::tensor::Tolerance::<f32>::absolute(1e-6);
            let actual = actual.into_data().convert::<f32>();
            actual.assert_approx_eq(&expected.into_data().convert::<f32>(), tolerance);
        }
    }
}

#[test]
#[should_panic = "differ in shape"]
fn rejects_a_gradient_of_another_shape() {
    let device = Device::default().autodiff();
    let x = Tensor::<1>::ones([2], &device).require_grad();
    backward_from([(x, Tensor::ones([3], &device))]);
}
