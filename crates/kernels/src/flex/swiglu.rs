//! SwiGLU's gate in one pass; the gradients take the place of what they are computed from.

use burn::backend::TensorMetadata;
use rayon::prelude::*;

use super::Primitive;
use super::buffer::{block_of_rows, dense, filled, nth_block, owned, tensor, values, values_mut};
use super::exp::sigmoid;
use super::simd::vectorised;

vectorised! {
    fn gate_block(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((y, &g), &u) in out.iter_mut().zip(gate).zip(up) {
            *y = g * sigmoid(g) * u;
        }
    }

    /// `dy` becomes the gradient to `gate`, `up` the gradient to itself.
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

pub(super) fn forward(gate: Primitive, up: Primitive) -> Primitive {
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

pub(super) fn backward(gate: Primitive, up: Primitive, dy: Primitive) -> (Primitive, Primitive) {
    let (gate, mut up, mut dy) = (dense(gate), owned(up), owned(dy));
    let block = block_of_rows(1);
    let dy_blocks = values_mut(&mut dy).par_chunks_mut(block);
    dy_blocks
        .zip(values_mut(&mut up).par_chunks_mut(block))
        .zip(values(&gate).par_chunks(block))
        .for_each(|((dy, up), gate)| backward_block(gate, up, dy));
    (dy, up)
}
