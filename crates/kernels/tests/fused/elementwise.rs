use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor};
use iiet_kernels::swiglu;

use crate::check::{assert_differentiates, assert_equal, flat, random};

#[test]
fn equals_the_composed_form() {
    for n in [1, 3, 17, 65, 130, 40_000] {
        let inputs = [random(n, 1), random(n, 2)];
        assert_equal(&inputs, &|x| swiglu(x[0].clone(), x[1].clone()), &|x| {
            silu(x[0].clone()) * x[1].clone()
        });
    }
}

#[test]
fn accepts_views() {
    let inputs = [random(5 * 34, 1), random(17 * 5, 2)];
    let gate = |x: &Tensor<1>| x.clone().reshape([5, 34]).slice([0..5, 17..34]);
    let up = |x: &Tensor<1>| x.clone().reshape([17, 5]).transpose();
    assert_equal(&inputs, &|x| flat(swiglu(gate(&x[0]), up(&x[1]))), &|x| {
        flat(silu(gate(&x[0])) * up(&x[1]))
    });
}

#[test]
fn accepts_one_tensor_twice() {
    let inputs = [random(33, 1)];
    assert_equal(
        &inputs,
        &|x| swiglu(x[0].clone(), x[0].clone()) + x[0].clone(),
        &|x| silu(x[0].clone()) * x[0].clone() + x[0].clone(),
    );
}

#[test]
fn extreme_inputs_equal_the_composed_form() {
    let inputs = [random(64, 1).map(|x| 60.0 * x), random(64, 2)];
    assert_equal(&inputs, &|x| swiglu(x[0].clone(), x[1].clone()), &|x| {
        silu(x[0].clone()) * x[1].clone()
    });
}

#[test]
fn gradients_equal_finite_differences() {
    let inputs = [random(6, 1), random(6, 2)];
    assert_differentiates(&inputs, &|x| swiglu(x[0].clone(), x[1].clone()));
}

#[test]
#[should_panic = "differ in shape"]
fn does_not_broadcast() {
    let device = Device::default();
    swiglu(
        Tensor::<2>::ones([2, 3], &device),
        Tensor::<2>::ones([1, 3], &device),
    );
}
