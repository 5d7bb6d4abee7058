//! LayerNorm by rows; the passes after the first read a row from the L1 cache.

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Shape;

use super::LayerNorm;
use crate::flex::Primitive;
use crate::flex::blocks::{Output, compute, read};
use crate::flex::buffer::{dense, sum_of_rows, tensor, values};
use crate::flex::halves::{Floats, at_most_f32, widened};
use crate::flex::simd::{reduce, sum2, sum3, vectorised};

impl LayerNorm for Flex {
    fn layer_norm(x: Primitive, gamma: Primitive, beta: Primitive, eps: f64) -> Primitive {
        match at_most_f32([&x, &gamma, &beta]) {
            true => forward(x, widened(gamma), widened(beta), eps as f32),
            false => super::forward::<Self>(x, gamma, beta, eps),
        }
    }

    fn layer_norm_backward(
        x: Primitive,
        gamma: Primitive,
        dy: Primitive,
        eps: f64,
    ) -> (Primitive, Primitive, Primitive) {
        match at_most_f32([&x, &gamma, &dy]) {
            true => backward(x, widened(gamma), dy, eps as f32),
            false => super::backward::<Self>(x, gamma, dy, eps),
        }
    }
}

/// The mean and `1 / sqrt(var + eps)`. The variance is computed from centred values: the difference
/// of two moments would cancel where the mean is large.
#[inline(always)]
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let d = x.len() as f32;
    let mean = reduce(x, 0.0, |x| x, |a, b| a + b) / d;
    let variance = reduce(x, 0.0, |x| (x - mean) * (x - mean), |a, b| a + b) / d;
    (mean, 1.0 / (variance + eps).sqrt())
}

vectorised! {
    fn normalise(x: &[f32], gamma: &[f32], beta: &[f32], eps: f32, out: &mut [f32]) {
        let d = gamma.len();
        for (x, out) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)) {
            let (mean, r) = moments(x, eps);
            for (((y, &x), &gamma), &beta) in out.iter_mut().zip(x).zip(gamma).zip(beta) {
                *y = (x - mean) * r * gamma + beta;
            }
        }
    }

    /// Writes `dx` and adds to `sums`, the gradients to gamma and beta.
    fn backward_block(
        x: &[f32],
        gamma: &[f32],
        eps: f32,
        dy: &[f32],
        dx: &mut [f32],
        sums: &mut [f32],
    ) {
        let d = gamma.len();
        let (d_gamma, d_beta) = sums.split_at_mut(d);
        let rows = x.chunks_exact(d).zip(dy.chunks_exact(d));
        for ((x, dy), dx) in rows.zip(dx.chunks_exact_mut(d)) {
            let (mean, r) = moments(x, eps);
            let level = sum2(gamma, dy, |gamma, dy| gamma * dy) / d as f32;
            let along = sum3(x, gamma, dy, |x, gamma, dy| (x - mean) * gamma * dy) * r / d as f32;
            let inputs = x.iter().zip(dy).zip(gamma);
            let outputs = dx.iter_mut().zip(&mut *d_gamma).zip(&mut *d_beta);
            for (((&x, &dy), &gamma), ((dx, d_gamma), d_beta)) in inputs.zip(outputs) {
                let n = (x - mean) * r;
                *d_gamma += dy * n;
                *d_beta += dy;
                *dx = r * (dy * gamma - level - n * along);
            }
        }
    }
}

fn forward(x: Primitive, gamma: Primitive, beta: Primitive, eps: f32) -> Primitive {
    let (x, gamma, beta) = (dense(x), dense(gamma), dense(beta));
    let (gamma, beta) = (values(&gamma), values(&beta));
    let output = Output::like(&x, gamma.len());
    let [y] = compute([output], |i, [y]| {
        read([Floats::of_dense(&x)], i, output.block, |[x]| {
            normalise(x, gamma, beta, eps, y)
        });
    });
    y.tensor(x.shape())
}

fn backward(
    x: Primitive,
    gamma: Primitive,
    dy: Primitive,
    eps: f32,
) -> (Primitive, Primitive, Primitive) {
    let (x, gamma, dy) = (dense(x), dense(gamma), dense(dy));
    let gamma = values(&gamma);
    let d = gamma.len();
    let output = Output::like(&x, d);
    let [dx, sums] = compute([output, output.sums_of_blocks(2 * d)], |i, [dx, sums]| {
        let inputs = [&x, &dy].map(Floats::of_dense);
        read(inputs, i, output.block, |[x, dy]| {
            backward_block(x, gamma, eps, dy, dx, sums);
        });
    });
    let mut d_gamma = sum_of_rows(&sums.in_f32(), 2 * d);
    let d_beta = d_gamma.split_off(d);
    let row = || Shape::from(vec![d]);
    (
        dx.tensor(x.shape()),
        tensor(d_gamma, row()),
        tensor(d_beta, row()),
    )
}
