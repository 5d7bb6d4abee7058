//! SwiGLU's gate in one pass; the gradients overwrite their inputs.

use burn::backend::{Flex, TensorMetadata};
use rayon::prelude::*;

use super::Swiglu;
use crate::flex::Primitive;
use crate::flex::buffer::{
    block_of_rows, dense, filled, nth_block, owned, tensor, values, values_mut,
};
use crate::flex::exp::sigmoid;
use crate::flex::halves::{as_f32, in_f32, rounded};
use crate::flex::simd::vectorised;

impl Swiglu for Flex {
    fn swiglu(gate: Primitive, up: Primitive) -> Primitive {
        in_f32([gate, up], forward).unwrap_or_else(|[gate, up]| super::forward::<Self>(gate, up))
    }

    fn swiglu_backward(gate: Primitive, up: Primitive, dy: Primitive) -> (Primitive, Primitive) {
        match as_f32([gate, up, dy]) {
            Ok((operands, dtype)) => {
                let (d_gate, d_up) = backward(operands);
                (rounded(d_gate, dtype), rounded(d_up, dtype))
            }
            Err([gate, up, dy]) => super::backward::<Self>(gate, up, dy),
        }
    }
}

vectorised! {
    fn gate_block(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((y, &g), &u) in out.iter_mut().zip(gate).zip(up) {
            *y = g * sigmoid(g) * u;
        }
    }

    /// Replaces `dy` by the gradient to `gate`, and `up` by its own gradient.
    fn backward_block(gate: &[f32], up: &mut [f32], dy: &mut [f32]) {
        for ((dy, u), &g) in dy.iter_mut().zip(up).zip(gate) {
            let s = sigmoid(g);
            let silu = g * s;
            let d_gate = *dy * *u * s * (1.0 + g - silu);
            *u = *dy * silu;
            *dy = d_gate;
        }
    }
}

fn forward([gate, up]: [Primitive; 2]) -> Primitive {
    let (gate, up) = (dense(gate), dense(up));
    let block = block_of_rows(1);
    let y = filled(values(&gate).len(), block, |i, y| {
        gate_block(
            nth_block(values(&gate), i, block),
            nth_block(values(&up), i, block),
            y,
        );
    });
    tensor(y, gate.shape())
}

fn backward([gate, up, dy]: [Primitive; 3]) -> (Primitive, Primitive) {
    let (gate, mut up, mut dy) = (dense(gate), owned(up), owned(dy));
    let block = block_of_rows(1);
    let dy_blocks = values_mut(&mut dy).par_chunks_mut(block);
    dy_blocks
        .zip(values_mut(&mut up).par_chunks_mut(block))
        .zip(values(&gate).par_chunks(block))
        .for_each(|((dy, up), gate)| backward_block(gate, up, dy));
    (dy, up)
}
