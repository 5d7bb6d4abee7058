//! The history's sum, a block of all states at a time.

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Shape;

use super::{States, WeightedSum};
use crate::flex::Primitive;
use crate::flex::blocks::{Output, compute, read};
use crate::flex::buffer::{dense, tensor, values};
use crate::flex::halves::{Floats, at_most_f32, widened};
use crate::flex::simd::{sum2, vectorised};

impl WeightedSum for Flex {
    fn weighted_sum(weights: Primitive, States(states): States<Self>) -> Primitive {
        match at_most_f32(states.iter().chain([&weights])) {
            true => forward(widened(weights), states),
            false => super::forward::<Self>(weights, States(states)),
        }
    }

    fn weighted_sum_backward(
        weights: Primitive,
        States(states): States<Self>,
        dy: Primitive,
    ) -> (Primitive, States<Self>) {
        if at_most_f32(states.iter().chain([&weights, &dy])) {
            let (d_weights, d_states) = backward(widened(weights), states, dy);
            (d_weights, States(d_states))
        } else {
            super::backward::<Self>(weights, States(states), dy)
        }
    }
}

vectorised! {
    fn scale_to(out: &mut [f32], x: &[f32], weight: f32) {
        for (y, &x) in out.iter_mut().zip(x) {
            *y = weight * x;
        }
    }

    fn add_scaled(out: &mut [f32], x: &[f32], weight: f32) {
        for (y, &x) in out.iter_mut().zip(x) {
            *y += weight * x;
        }
    }

    /// Two terms at a time halve the number of passes over the sum.
    fn add_two_scaled(out: &mut [f32], x: &[f32], z: &[f32], weights: [f32; 2]) {
        for ((y, &x), &z) in out.iter_mut().zip(x).zip(z) {
            *y += weights[0] * x + weights[1] * z;
        }
    }

    fn dot(x: &[f32], y: &[f32]) -> f32 {
        sum2(x, y, |x, y| x * y)
    }
}

fn forward(weights: Primitive, states: Vec<Primitive>) -> Primitive {
    let states: Vec<_> = states.into_iter().map(dense).collect();
    let weights = dense(weights);
    let (first_weight, weights) = values(&weights)
        .split_first()
        .expect("invariant: the public function rejects an empty sum");
    let output = Output::like(&states[0], 1);
    let [y] = compute([output], |i, [y]| {
        let state = |k: usize| Floats::of_dense(&states[k]);
        read([state(0)], i, output.block, |[x]| {
            scale_to(y, x, *first_weight)
        });
        let (pairs, last) = weights.as_chunks::<2>();
        for (k, &pair) in pairs.iter().enumerate() {
            let pair_of_states = [state(2 * k + 1), state(2 * k + 2)];
            read(pair_of_states, i, output.block, |[x, z]| {
                add_two_scaled(y, x, z, pair)
            });
        }
        if let [weight] = last {
            let state = state(states.len() - 1);
            read([state], i, output.block, |[x]| add_scaled(y, x, *weight));
        }
    });
    y.tensor(states[0].shape())
}

fn backward(
    weights: Primitive,
    states: Vec<Primitive>,
    dy: Primitive,
) -> (Primitive, Vec<Primitive>) {
    let (weights, dy) = (dense(weights), dense(dy));
    let n = states.len();
    let of_state = |(state, &weight): (Primitive, &f32)| {
        let state = dense(state);
        let output = Output::like(&state, 1);
        let [d_state, dots] = compute([output, output.sums_of_blocks(1)], |i, [d_state, sum]| {
            let inputs = [&state, &dy].map(Floats::of_dense);
            read(inputs, i, output.block, |[state, dy]| {
                sum[0] = dot(state, dy);
                scale_to(d_state, dy, weight);
            });
        });
        // In f64, because thousands of partial products may cancel.
        let d_weight = dots.in_f32().into_iter().map(f64::from).sum::<f64>() as f32;
        (d_weight, d_state.tensor(state.shape()))
    };
    let (d_weights, d_states) = states
        .into_iter()
        .zip(values(&weights))
        .map(of_state)
        .unzip();
    (tensor(d_weights, Shape::from(vec![n])), d_states)
}
