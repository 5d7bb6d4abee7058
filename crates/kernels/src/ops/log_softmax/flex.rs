//! Log-probabilities by rows, in three passes over a row that stays in cache.

use burn::backend::{Flex, TensorMetadata};

use super::LogSoftmax;
use crate::flex::Primitive;
use crate::flex::blocks::{Output, compute, read};
use crate::flex::buffer::dense;
use crate::flex::exp::exp;
use crate::flex::halves::{Floats, at_most_f32};
use crate::flex::simd::{larger, reduce, vectorised};

impl LogSoftmax for Flex {
    fn log_probabilities(x: Primitive) -> Primitive {
        match at_most_f32([&x]) {
            true => forward(x),
            false => super::forward::<Self>(x),
        }
    }
}

vectorised! {
    fn rows(x: &[f32], n: usize, out: &mut [f32]) {
        for (x, out) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
            let max = reduce(x, f32::NEG_INFINITY, |x| x, larger);
            let sum = reduce(x, 0.0, |x| exp(x - max), |a, b| a + b);
            let log_sum = max + sum.ln();
            for (y, x) in out.iter_mut().zip(x) {
                *y = x - log_sum;
            }
        }
    }
}

fn forward(x: Primitive) -> Primitive {
    let (n, x) = (x.shape()[1], dense(x));
    let output = Output::like(&x, n);
    let [y] = compute([output], |i, [y]| {
        read([Floats::of_dense(&x)], i, output.block, |[x]| rows(x, n, y));
    });
    y.tensor(x.shape())
}
