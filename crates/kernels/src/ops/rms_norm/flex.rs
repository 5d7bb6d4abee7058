//! RMSNorm by rows: two passes over a row, the second from the L1 cache.

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Shape;
use rayon::prelude::*;

use super::RmsNorm;
use crate::flex::Primitive;
use crate::flex::buffer::{
    block_of_rows, dense, filled, nth_block, owned, sum_of_rows, tensor, values, values_mut,
};
use crate::flex::halves::{as_f32, in_f32, rounded};
use crate::flex::simd::{reduce, sum3, vectorised};

impl RmsNorm for Flex {
    fn rms_norm(x: Primitive, gamma: Primitive, eps: f64) -> Primitive {
        in_f32([x, gamma], |operands| forward(operands, eps as f32))
            .unwrap_or_else(|[x, gamma]| super::forward::<Self>(x, gamma, eps))
    }

    fn rms_norm_backward(
        x: Primitive,
        gamma: Primitive,
        dy: Primitive,
        eps: f64,
    ) -> (Primitive, Primitive) {
        match as_f32([x, gamma, dy]) {
            Ok((operands, dtype)) => {
                let (dx, d_gamma) = backward(operands, eps as f32);
                (rounded(dx, dtype), d_gamma)
            }
            Err([x, gamma, dy]) => super::backward::<Self>(x, gamma, dy, eps),
        }
    }
}

/// `1 / sqrt(mean(x^2) + eps)`.
#[inline(always)]
fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    let squares = reduce(x, 0.0, |x| x * x, |a, b| a + b);
    1.0 / (squares / x.len() as f32 + eps).sqrt()
}

vectorised! {
    fn normalise(x: &[f32], gamma: &[f32], eps: f32, out: &mut [f32]) {
        let d = gamma.len();
        for (x, out) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)) {
            let r = inverse_rms(x, eps);
            for ((y, &x), &gamma) in out.iter_mut().zip(x).zip(gamma) {
                *y = x * r * gamma;
            }
        }
    }

    /// Replaces `dy` by the gradient to `x`.
    fn backward_block(x: &[f32], gamma: &[f32], eps: f32, dy: &mut [f32], d_gamma: &mut [f32]) {
        let d = gamma.len();
        for (x, dy) in x.chunks_exact(d).zip(dy.chunks_exact_mut(d)) {
            let r = inverse_rms(x, eps);
            let along = sum3(x, gamma, dy, |x, gamma, dy| x * gamma * dy) * r / d as f32;
            for (((dy, &x), &gamma), d_gamma) in dy.iter_mut().zip(x).zip(gamma).zip(&mut *d_gamma) {
                let n = x * r;
                *d_gamma += *dy * n;
                *dy = r * (*dy * gamma - n * along);
            }
        }
    }
}

fn forward([x, gamma]: [Primitive; 2], eps: f32) -> Primitive {
    let (x, gamma) = (dense(x), dense(gamma));
    let block = block_of_rows(values(&gamma).len());
    let y = filled(values(&x).len(), block, |i, y| {
        normalise(nth_block(values(&x), i, block), values(&gamma), eps, y);
    });
    tensor(y, x.shape())
}

fn backward([x, gamma, dy]: [Primitive; 3], eps: f32) -> (Primitive, Primitive) {
    let (x, gamma, mut dy) = (dense(x), dense(gamma), owned(dy));
    let d = values(&gamma).len();
    let block = block_of_rows(d);
    let mut parts = vec![0.0; values(&x).len().div_ceil(block) * d];
    values_mut(&mut dy)
        .par_chunks_mut(block)
        .zip(values(&x).par_chunks(block))
        .zip(parts.par_chunks_mut(d))
        .for_each(|((dy, x), part)| backward_block(x, values(&gamma), eps, dy, part));
    (dy, tensor(sum_of_rows(&parts, d), Shape::from(vec![d])))
}
