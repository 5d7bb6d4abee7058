use burn::tensor::{DType, Device, Tensor, TensorData};
use iiet_kernels::{AdamWStep, WithMoments, adamw, sum_of_squares};

use crate::check::{assert_close, random};

fn read(x: &Tensor<1>) -> Vec<f64> {
    x.clone().into_data().try_into_vec_as::<f64>().unwrap()
}

fn step(update: usize) -> AdamWStep {
    AdamWStep {
        lr: 0.01,
        beta_1: 0.9,
        beta_2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        scale: 0.5,
        update,
    }
}

/// Three steps of `torch.optim.AdamW` 2.4 with these hyperparameters; gradients are twice as large
/// here.
#[test]
fn steps_equal_pytorchs() {
    let gradients = [
        [0.2, -4.0, 0.0, 6.0],
        [-0.8, 2.0, 1.0, 6.0],
        [0.4, 0.0, -1.0, -2.0],
    ];
    let parameter = [
        0.495_148_092_508_316_04,
        -1.231_491_565_704_345_7,
        1.987_110_137_939_453_1,
        -0.026_092_730_462_551_117,
    ];
    let first = [-0.0079, -0.072, -0.005, 0.413];
    let second = [0.010_051_25, 0.228, 0.024_375, 0.883_625];
    for dtype in [DType::F32, DType::F64] {
        let device = Device::default();
        let on = |x: [f64; 4]| Tensor::<1>::from_data(TensorData::from(x), (&device, dtype));
        let mut state = WithMoments {
            parameter: on([0.5, -1.25, 2.0, 0.0]),
            first: on([0.0; 4]),
            second: on([0.0; 4]),
        };
        for (t, gradient) in gradients.into_iter().enumerate() {
            state = adamw(state, on(gradient), &step(t + 1));
        }
        assert_close("parameter", &read(&state.parameter), &parameter, 1e-6);
        assert_close("first", &read(&state.first), &first, 1e-6);
        assert_close("second", &read(&state.second), &second, 1e-6);
    }
}

#[test]
fn shared_tensors_are_not_modified() {
    let device = Device::default();
    let x = || random(40_000, 1).on(DType::F32, &device);
    let kept = x();
    let state = || WithMoments {
        parameter: kept.clone(),
        first: x(),
        second: x().square(),
    };
    let (one, two) = (adamw(state(), x(), &step(3)), adamw(state(), x(), &step(3)));
    kept.into_data().assert_eq(&x().into_data(), true);
    one.parameter
        .into_data()
        .assert_eq(&two.parameter.into_data(), true);
}

#[test]
fn sum_of_squares_keeps_precision() {
    let n = 3 * (1 << 14) + 3;
    let device = Device::default();
    let x = random(n, 1).on(DType::F32, &device);
    let expected: f64 = read(&x).iter().map(|x| x * x).sum();
    for x in [x.clone(), x.reshape([5, n / 5]).transpose().reshape([n])] {
        assert_close("sum", &read(&sum_of_squares(x)), &[expected], 1e-6);
    }
}

#[test]
#[should_panic = "differ in shape"]
fn rejects_a_gradient_of_another_shape() {
    let x = |n: usize| Tensor::<1>::ones([n], &Device::default());
    let state = WithMoments {
        parameter: x(2),
        first: x(2),
        second: x(2),
    };
    adamw(state, x(3), &step(1));
}
