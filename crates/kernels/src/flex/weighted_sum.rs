//! The history's sum, a block of all states at a time.

use burn::backend::TensorMetadata;
use burn::tensor::Shape;
use rayon::prelude::*;

use super::Primitive;
use super::buffer::{
    block_of_rows, dense, for_blocks, nth_block, owned, tensor, values, values_mut,
};
use super::simd::{sum2, vectorised};

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

    /// Half as many passes over the sum.
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

pub(super) fn forward(states: Vec<Primitive>, weights: Primitive) -> Primitive {
    let states: Vec<_> = states.into_iter().map(dense).collect();
    let weights = dense(weights);
    let (first_weight, weights) = values(&weights)
        .split_first()
        .expect("invariant: the public function refuses an empty sum");
    let mut y = vec![0.0; values(&states[0]).len()];
    let block = block_of_rows(1);
    for_blocks(&mut y, block, |i, y| {
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

/// The gradient of the last state takes the place of `dy`.
pub(super) fn backward(
    states: Vec<Primitive>,
    weights: Primitive,
    dy: Primitive,
) -> (Vec<Primitive>, Primitive) {
    let states: Vec<_> = states.into_iter().map(dense).collect();
    let (weights, mut dy) = (dense(weights), owned(dy));
    let weights = values(&weights);
    let n = states.len();
    let block = block_of_rows(1);
    let (shape, len) = (dy.shape(), values(&dy).len());
    let blocks = len.div_ceil(block);

    let mut gradients: Vec<Vec<f32>> = (1..n).map(|_| vec![0.0; len]).collect();
    // What each thread writes: its block of all gradients, one under the other.
    let mut parts: Vec<Vec<&mut [f32]>> = (0..blocks).map(|_| Vec::with_capacity(n - 1)).collect();
    for gradient in &mut gradients {
        for (part, block) in parts.iter_mut().zip(gradient.chunks_mut(block)) {
            part.push(block);
        }
    }
    let mut dots = vec![0.0; blocks * n];
    values_mut(&mut dy)
        .par_chunks_mut(block)
        .zip(parts)
        .zip(dots.par_chunks_mut(n))
        .enumerate()
        .for_each(|(i, ((dy, parts), dots))| {
            for (state, d) in states.iter().zip(&mut *dots) {
                *d = dot(nth_block(values(state), i, block), dy);
            }
            for (part, &weight) in parts.into_iter().zip(weights) {
                scale_to(part, dy, weight);
            }
            scale(dy, weights[n - 1]);
        });
    // In f64: some thousand blocks of products that may cancel.
    let d_weights = (0..n)
        .map(|k| {
            dots.iter()
                .skip(k)
                .step_by(n)
                .map(|&d| f64::from(d))
                .sum::<f64>() as f32
        })
        .collect();
    let mut d_states: Vec<_> = gradients
        .into_iter()
        .map(|gradient| tensor(gradient, shape.clone()))
        .collect();
    d_states.push(dy);
    (d_states, tensor(d_weights, Shape::from(vec![n])))
}
