//! LayerNorm by rows; the passes after the first read a row from the L1 cache.

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Shape;
use rayon::prelude::*;

use super::LayerNorm;
use crate::flex::Primitive;
use crate::flex::buffer::{
    block_of_rows, dense, filled, nth_block, owned, sum_of_rows, tensor, values, values_mut,
};
use crate::flex::halves::{as_f32, in_f32, rounded};
use crate::flex::simd::{reduce, sum2, sum3, vectorised};

impl LayerNorm for Flex {
    fn layer_norm(x: Primitive, gamma: Primitive, beta: Primitive, eps: f64) -> Primitive {
        in_f32([x, gamma, beta], |operands| forward(operands, eps as f32))
            .unwrap_or_else(|[x, gamma, beta]| super::forward::<Self>(x, gamma, beta, eps))
    }

    fn layer_norm_backward(
        x: Primitive,
        gamma: Primitive,
        dy: Primitive,
        eps: f64,
    ) -> (Primitive, Primitive, Primitive) {
        match as_f32([x, gamma, dy]) {
            Ok((operands, dtype)) => {
                let (dx, d_gamma, d_beta) = backward(operands, eps as f32);
                (rounded(dx, dtype), d_gamma, d_beta)
            }
            Err([x, gamma, dy]) => super::backward::<Self>(x, gamma, dy, eps),
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

    /// Replaces `dy` by the gradient to `x`; `sums` are the gradients to gamma and beta.
    fn backward_block(x: &[f32], gamma: &[f32], eps: f32, dy: &mut [f32], sums: &mut [f32]) {
        let d = gamma.len();
        let (d_gamma, d_beta) = sums.split_at_mut(d);
        for (x, dy) in x.chunks_exact(d).zip(dy.chunks_exact_mut(d)) {
            let (mean, r) = moments(x, eps);
            let level = sum2(gamma, dy, |gamma, dy| gamma * dy) / d as f32;
            let along = sum3(x, gamma, dy, |x, gamma, dy| (x - mean) * gamma * dy) * r / d as f32;
            for ((((dy, &x), &gamma), d_gamma), d_beta) in
                dy.iter_mut().zip(x).zip(gamma).zip(&mut *d_gamma).zip(&mut *d_beta)
            {
                let n = (x - mean) * r;
                *d_gamma += *dy * n;
                *d_beta += *dy;
                *dy = r * (*dy * gamma - level - n * along);
            }
        }
    }
}

fn forward([x, gamma, beta]: [Primitive; 3], eps: f32) -> Primitive {
    let (x, gamma, beta) = (dense(x), dense(gamma), dense(beta));
    let block = block_of_rows(values(&gamma).len());
    let y = filled(values(&x).len(), block, |i, y| {
        let x = nth_block(values(&x), i, block);
        normalise(x, values(&gamma), values(&beta), eps, y);
    });
    tensor(y, x.shape())
}

fn backward([x, gamma, dy]: [Primitive; 3], eps: f32) -> (Primitive, Primitive, Primitive) {
    let (x, gamma, mut dy) = (dense(x), dense(gamma), owned(dy));
    let d = values(&gamma).len();
    let block = block_of_rows(d);
    let mut parts = vec![0.0; values(&x).len().div_ceil(block) * 2 * d];
    values_mut(&mut dy)
        .par_chunks_mut(block)
        .zip(values(&x).par_chunks(block))
        .zip(parts.par_chunks_mut(2 * d))
        .for_each(|((dy, x), part)| backward_block(x, values(&gamma), eps, dy, part));
    let mut d_gamma = sum_of_rows(&parts, 2 * d);
    let d_beta = d_gamma.split_off(d);
    let row = || Shape::from(vec![d]);
    (dy, tensor(d_gamma, row()), tensor(d_beta, row()))
}
