//! RMSNorm by rows: two passes over a row, the second from the L1 cache.

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Shape;

use super::RmsNorm;
use crate::flex::Primitive;
use crate::flex::blocks::{Output, compute, read};
use crate::flex::buffer::{dense, sum_of_rows, tensor, values};
use crate::flex::halves::{Floats, at_most_f32, widened};
use crate::flex::simd::{reduce, sum3, vectorised};

impl RmsNorm for Flex {
    fn rms_norm(x: Primitive, gamma: Primitive, eps: f64) -> Primitive {
        match at_most_f32([&x, &gamma]) {
            true => forward(x, widened(gamma), eps as f32),
            false => super::forward::<Self>(x, gamma, eps),
        }
    }

    fn rms_norm_backward(
        x: Primitive,
        gamma: Primitive,
        dy: Primitive,
        eps: f64,
    ) -> (Primitive, Primitive) {
        match at_most_f32([&x, &gamma, &dy]) {
            true => backward(x, widened(gamma), dy, eps as f32),
            false => super::backward::<Self>(x, gamma, dy, eps),
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

    /// Writes `dx` and adds to `d_gamma`.
    fn backward_block(
        x: &[f32],
        gamma: &[f32],
        eps: f32,
        dy: &[f32],
        dx: &mut [f32],
        d_gamma: &mut [f32],
    ) {
        let d = gamma.len();
        let rows = x.chunks_exact(d).zip(dy.chunks_exact(d));
        for ((x, dy), dx) in rows.zip(dx.chunks_exact_mut(d)) {
            let r = inverse_rms(x, eps);
            let along = sum3(x, gamma, dy, |x, gamma, dy| x * gamma * dy) * r / d as f32;
            let inputs = x.iter().zip(dy).zip(gamma);
            for (((&x, &dy), &gamma), (dx, d_gamma)) in inputs.zip(dx.iter_mut().zip(&mut *d_gamma)) {
                let n = x * r;
                *d_gamma += dy * n;
                *dx = r * (dy * gamma - n * along);
            }
        }
    }
}

fn forward(x: Primitive, gamma: Primitive, eps: f32) -> Primitive {
    let (x, gamma) = (dense(x), dense(gamma));
    let gamma = values(&gamma);
    let output = Output::like(&x, gamma.len());
    let [y] = compute([output], |i, [y]| {
        read([Floats::of_dense(&x)], i, output.block, |[x]| {
            normalise(x, gamma, eps, y)
        });
    });
    y.tensor(x.shape())
}

fn backward(x: Primitive, gamma: Primitive, dy: Primitive, eps: f32) -> (Primitive, Primitive) {
    let (x, gamma, dy) = (dense(x), dense(gamma), dense(dy));
    let gamma = values(&gamma);
    let d = gamma.len();
    let output = Output::like(&x, d);
    let [dx, d_gamma] = compute([output, output.sums_of_blocks(d)], |i, [dx, d_gamma]| {
        let inputs = [&x, &dy].map(Floats::of_dense);
        read(inputs, i, output.block, |[x, dy]| {
            backward_block(x, gamma, eps, dy, dx, d_gamma);
        });
    });
    let d_gamma = sum_of_rows(&d_gamma.in_f32(), d);
    (dx.tensor(x.shape()), tensor(d_gamma, Shape::from(vec![d])))
}
