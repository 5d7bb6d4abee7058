use burn::tensor::{Device, Tensor};
use iiet_kernels::{layer_norm, rms_norm};

use crate::check::{assert_differentiates, assert_equal, flat, random};

const EPS: f64 = 1e-5;

fn composed_rms(x: Tensor<3>, gamma: Tensor<1>) -> Tensor<3> {
    let rms = (x.clone().powi_scalar(2).mean_dim(2) + EPS).sqrt();
    x / rms * gamma.unsqueeze()
}

fn composed_layer(x: Tensor<3>, gamma: Tensor<1>, beta: Tensor<1>) -> Tensor<3> {
    let centred = x.clone() - x.mean_dim(2);
    let deviation = (centred.clone().powi_scalar(2).mean_dim(2) + EPS).sqrt();
    centred / deviation * gamma.unsqueeze() + beta.unsqueeze()
}

#[test]
fn equal_the_composed_forms() {
    for [batch, seq, d] in [
        [1, 1, 1],
        [1, 3, 17],
        [2, 5, 65],
        [3, 1, 130],
        [4, 33, 512],
        [1, 2, 20_000],
    ] {
        let x = random(batch * seq * d, 1).map(|x| x + 0.5);
        let inputs = [x, random(d, 2), random(d, 3)];
        let shaped = |x: &Tensor<1>| x.clone().reshape([batch, seq, d]);
        assert_equal(
            &inputs[..2],
            &|x| flat(rms_norm(shaped(&x[0]), x[1].clone(), EPS)),
            &|x| flat(composed_rms(shaped(&x[0]), x[1].clone())),
        );
        assert_equal(
            &inputs,
            &|x| flat(layer_norm(shaped(&x[0]), x[1].clone(), x[2].clone(), EPS)),
            &|x| flat(composed_layer(shaped(&x[0]), x[1].clone(), x[2].clone())),
        );
    }
}

#[test]
fn accept_views() {
    let inputs = [random(5 * 17 * 6, 1), random(17, 2), random(17, 3)];
    let view = |x: &Tensor<1>| {
        let x = x.clone().reshape([5, 17, 6]).swap_dims(1, 2);
        x.slice([0..5, 1..4])
    };
    assert_equal(
        &inputs[..2],
        &|x| flat(rms_norm(view(&x[0]), x[1].clone(), EPS)),
        &|x| flat(composed_rms(view(&x[0]), x[1].clone())),
    );
    assert_equal(
        &inputs,
        &|x| flat(layer_norm(view(&x[0]), x[1].clone(), x[2].clone(), EPS)),
        &|x| flat(composed_layer(view(&x[0]), x[1].clone(), x[2].clone())),
    );
}

#[test]
fn incoming_gradients_are_not_overwritten() {
    // The incoming gradient is shared with the sum, so it must not be overwritten.
    let inputs = [random(3 * 17, 1), random(17, 2)];
    let shaped = |x: &Tensor<1>| x.clone().reshape([1, 3, 17]);
    assert_equal(
        &inputs,
        &|x| flat(shaped(&x[0]) + rms_norm(shaped(&x[0]), x[1].clone(), EPS)),
        &|x| flat(shaped(&x[0]) + composed_rms(shaped(&x[0]), x[1].clone())),
    );
}

#[test]
fn gradients_equal_finite_differences() {
    let inputs = [random(10, 1), random(5, 2), random(5, 3)];
    let shaped = |x: &Tensor<1>| x.clone().reshape([2, 5]);
    assert_differentiates(&inputs[..2], &|x| {
        flat(rms_norm(shaped(&x[0]), x[1].clone(), EPS))
    });
    assert_differentiates(&inputs, &|x| {
        flat(layer_norm(shaped(&x[0]), x[1].clone(), x[2].clone(), EPS))
    });
}

#[test]
fn a_large_mean_does_not_cancel_the_variance() {
    // The variance is computed from centred values: the difference of two moments would cancel
    // here.
    let inputs = [
        random(2 * 64, 1).map(|x| 1000.0 + x),
        random(64, 2),
        random(64, 3),
    ];
    let x = |dtype| {
        crate::check::value(&inputs, dtype, &|x| {
            let shaped = x[0].clone().reshape([2, 64]);
            flat(layer_norm(shaped, x[1].clone(), x[2].clone(), EPS))
        })
    };
    let (single, double) = (x(burn::tensor::DType::F32), x(burn::tensor::DType::F64));
    crate::check::assert_close("value", &single, &double, 1e-4);
}

#[test]
#[should_panic = "as long as the last axis"]
fn rms_norm_does_not_broadcast() {
    let device = Device::default();
    rms_norm(
        Tensor::<2>::ones([2, 3], &device),
        Tensor::ones([1], &device),
        EPS,
    );
}

#[test]
#[should_panic = "as long as the last axis"]
fn layer_norm_does_not_broadcast() {
    let device = Device::default();
    let (gamma, beta) = (Tensor::ones([3], &device), Tensor::ones([1], &device));
    layer_norm(Tensor::<2>::ones([2, 3], &device), gamma, beta, EPS);
}
