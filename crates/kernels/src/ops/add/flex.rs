//! Sums by blocks, on all threads, in the memory of an operand that nothing else refers to.

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, bf16, f16};

use super::Add;
use crate::flex::Primitive;
use crate::flex::blocks::{Output, compute, read};
use crate::flex::buffer::{block_of_rows, dense, for_blocks, is_own};
use crate::flex::halves::{Floats, at_most_f32, nearest_bf16, round_to_f16, wide_bf16, widen_f16};
use crate::flex::simd::vectorised;

/// f16 that are widened at a time, in registers and the L1 cache.
const PART: usize = 256;

impl Add for Flex {
    fn add(x: Primitive, y: Primitive) -> Primitive {
        if x.dtype() != y.dtype() || !at_most_f32([&x]) {
            return super::forward::<Self>(x, y);
        }
        let (x, y) = (dense(x), dense(y));
        match (is_own(&x), is_own(&y)) {
            (true, _) => add_to(x, &y),
            (false, true) => add_to(y, &x),
            (false, false) => sum(&x, &y),
        }
    }
}

vectorised! {
    fn add_f32(sum: &mut [f32], x: &[f32]) {
        for (sum, &x) in sum.iter_mut().zip(x) {
            *sum += x;
        }
    }

    fn add_bf16(sum: &mut [bf16], x: &[bf16]) {
        for (sum, &x) in sum.iter_mut().zip(x) {
            *sum = nearest_bf16(wide_bf16(*sum) + wide_bf16(x));
        }
    }
}

fn add_f16(sum: &mut [f16], x: &[f16]) {
    let mut buffers = [[0.0; PART]; 2];
    for (sum, x) in sum.chunks_mut(PART).zip(x.chunks(PART)) {
        let [total, term] = buffers.each_mut().map(|buffer| &mut buffer[..x.len()]);
        widen_f16(sum, total);
        widen_f16(x, term);
        add_f32(total, term);
        round_to_f16(total, sum);
    }
}

/// The sum in the memory of its first operand, whose only owner is the caller.
fn add_to(mut sum: Primitive, x: &Primitive) -> Primitive {
    macro_rules! by_blocks {
        ($add:ident) => {{
            let (x, block) = (x.as_slice().expect("invariant: dense"), block_of_rows(1));
            for_blocks(sum.storage_mut(), block, |i, sum| {
                $add(sum, &x[i * block..][..sum.len()])
            });
        }};
    }
    match sum.dtype() {
        DType::F32 => by_blocks!(add_f32),
        DType::F16 => by_blocks!(add_f16),
        _ => by_blocks!(add_bf16),
    }
    sum
}

/// The sum in memory of its own.
fn sum(x: &Primitive, y: &Primitive) -> Primitive {
    let output = Output::like(x, 1);
    let [sum] = compute([output], |i, [sum]| {
        let operands = [x, y].map(Floats::of_dense);
        read(operands, i, output.block, |[x, y]| {
            sum.copy_from_slice(x);
            add_f32(sum, y);
        });
    });
    sum.tensor(x.shape())
}
