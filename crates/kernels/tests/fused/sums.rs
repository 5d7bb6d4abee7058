use burn::tensor::{Device, Tensor};
use iiet_kernels::weighted_sum;

use crate::check::{Input, assert_differentiates, assert_equal, flat, random};

fn composed(states: Vec<Tensor<2>>, weights: Tensor<1>) -> Tensor<2> {
    let terms = states.into_iter().enumerate().map(|(k, state)| {
        let weight = weights.clone().narrow(0, k, 1).reshape([1, 1]);
        state * weight
    });
    terms.reduce(|sum, term| sum + term).unwrap()
}

/// `n` states and their weights.
fn inputs(n: usize, len: usize) -> Vec<Input> {
    let mut inputs: Vec<_> = (0..n).map(|k| random(len, k as u64 + 1)).collect();
    inputs.push(random(n, 77));
    inputs
}

#[test]
fn equals_the_composed_form() {
    for (n, len) in [
        (1, 1),
        (2, 3),
        (3, 17),
        (4, 130),
        (5, 40_000),
        (13, 65),
        (16, 5),
        (17, 5),
        (40, 7),
    ] {
        let states = |x: &[Tensor<1>]| {
            let states = x[..n].iter();
            states
                .map(|s| s.clone().reshape([1, len]))
                .collect::<Vec<_>>()
        };
        assert_equal(
            &inputs(n, len),
            &|x| flat(weighted_sum(states(x), x[n].clone())),
            &|x| flat(composed(states(x), x[n].clone())),
        );
    }
}

#[test]
fn accepts_views_and_one_state_twice() {
    let states = |x: &[Tensor<1>]| {
        vec![
            x[0].clone().reshape([5, 7]),
            x[1].clone().reshape([7, 5]).transpose(),
            x[0].clone().reshape([5, 7]),
        ]
    };
    let inputs = [random(35, 1), random(35, 2), random(9, 3)];
    let row = |x: &Tensor<1>| {
        let w = x.clone().reshape([3, 3]).slice([1..2, 0..3]);
        w.reshape([3])
    };
    assert_equal(
        &inputs,
        &|x| flat(weighted_sum(states(x), row(&x[2]))),
        &|x| flat(composed(states(x), row(&x[2]))),
    );
}

#[test]
fn accepts_constants_among_the_inputs() {
    let mut inputs = inputs(3, 17);
    inputs[1] = inputs[1].clone().constant();
    let states = |x: &[Tensor<1>]| x[..3].iter().map(|s| s.clone().reshape([1, 17])).collect();
    assert_equal(
        &inputs,
        &|x| flat(weighted_sum::<2>(states(x), x[3].clone())),
        &|x| flat(composed(states(x), x[3].clone())),
    );
    inputs[3] = inputs[3].clone().constant();
    assert_equal(
        &inputs,
        &|x| flat(weighted_sum::<2>(states(x), x[3].clone())),
        &|x| flat(composed(states(x), x[3].clone())),
    );
}

#[test]
fn gradients_equal_finite_differences() {
    assert_differentiates(&inputs(3, 4), &|x| {
        weighted_sum(x[..3].to_vec(), x[3].clone())
    });
}

#[test]
#[should_panic = "2 states, 3 weights"]
fn rejects_more_weights_than_states() {
    let device = Device::default();
    let state = || Tensor::<2>::ones([2, 3], &device);
    weighted_sum(vec![state(), state()], Tensor::ones([3], &device));
}

#[test]
#[should_panic = "differ in shape"]
fn does_not_broadcast() {
    let device = Device::default();
    let states = vec![
        Tensor::<2>::ones([2, 3], &device),
        Tensor::<2>::ones([1, 3], &device),
    ];
    weighted_sum(states, Tensor::ones([2], &device));
}
