//! The history's sum, a block of all states at a time.

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Shape;
use rayon::prelude::*;

use super::{States, WeightedSum};
use crate::flex::Primitive;
use crate::flex::buffer::{
    block_of_rows, dense, filled, for_blocks, nth_block, owned, tensor, values, values_mut,
};
use crate::flex::halves::{at_most_f32, rounded, widened};
use crate::flex::simd::{sum2, vectorised};

impl WeightedSum for Flex {
    fn weighted_sum(weights: Primitive, States(states): States<Self>) -> Primitive {
        if at_most_f32(states.iter().chain([&weights])) {
            let dtype = states[0].dtype();
            let states = states.into_iter().map(widened).collect();
            rounded(forward(widened(weights), states), dtype)
        } else {
            super::forward::<Self>(weights, States(states))
        }
    }

    fn weighted_sum_backward(
        weights: Primitive,
        States(states): States<Self>,
        dy: Primitive,
    ) -> (Primitive, States<Self>) {
        if at_most_f32(states.iter().chain([&weights, &dy])) {
            let dtypes: Vec<_> = states.iter().map(|s| s.dtype()).collect();
            let states = states.into_iter().map(widened).collect();
            let (d_weights, d_states) = backward(widened(weights), states, widened(dy));
            let d_states = d_states.into_iter().zip(dtypes);
            let d_states = d_states.map(|(d, dtype)| rounded(d, dtype)).collect();
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

    fn scale(x: &mut [f32], weight: f32) {
        for x in x {
            *x *= weight;
        }
    }
}

fn forward(weights: Primitive, states: Vec<Primitive>) -> Primitive {
    let states: Vec<_> = states.into_iter().map(dense).collect();
    let weights = dense(weights);
    let (first_weight, weights) = values(&weights)
        .split_first()
        .expect("invariant: the public function rejects an empty sum");
    let block = block_of_rows(1);
    let y = filled(values(&states[0]).len(), block, |i, y| {
        let part = |k: usize| nth_block(values(&states[k]), i, block);
        scale_to(y, part(0), *first_weight);
        let (pairs, last) = weights.as_chunks::<2>();
        for (k, &pair) in pairs.iter().enumerate() {
            add_two_scaled(y, part(2 * k + 1), part(2 * k + 2), pair);
        }
        if let [weight] = last {
            add_scaled(y, part(states.len() - 1), *weight);
        }
    });
    tensor(y, states[0].shape())
}

/// The gradient to the last state overwrites `dy`.
fn backward(
    weights: Primitive,
    states: Vec<Primitive>,
    dy: Primitive,
) -> (Primitive, Vec<Primitive>) {
    let states: Vec<_> = states.into_iter().map(dense).collect();
    let (weights, mut dy) = (dense(weights), owned(dy));
    let weights = values(&weights);
    let n = states.len();
    let block = block_of_rows(1);
    let mut dots = vec![0.0; values(&dy).len().div_ceil(block) * n];
    values(&dy)
        .par_chunks(block)
        .zip(dots.par_chunks_mut(n))
        .enumerate()
        .for_each(|(i, (dy, dots))| {
            for (state, d) in states.iter().zip(dots) {
                *d = dot(nth_block(values(state), i, block), dy);
            }
        });
    // In f64, because thousands of partial products may cancel.
    let total = |k: usize| {
        let dots = dots.iter().skip(k).step_by(n);
        dots.map(|&d| f64::from(d)).sum::<f64>() as f32
    };
    let d_weights = (0..n).map(total).collect();

    let (last, others) = weights
        .split_last()
        .expect("invariant: the public function rejects an empty sum");
    let mut d_states: Vec<_> = others
        .iter()
        .map(|&weight| {
            let dy = values(&dy);
            let d_state = filled(dy.len(), block, |i, part| {
                scale_to(part, nth_block(dy, i, block), weight);
            });
            tensor(d_state, states[0].shape())
        })
        .collect();
    for_blocks(values_mut(&mut dy), block, |_, dy| scale(dy, *last));
    d_states.push(dy);
    (tensor(d_weights, Shape::from(vec![n])), d_states)
}
