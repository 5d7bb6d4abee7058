//! SwiGLU's gate in one pass.

use burn::backend::{Flex, TensorMetadata};

use super::Swiglu;
use crate::flex::Primitive;
use crate::flex::blocks::{Output, compute, read};
use crate::flex::buffer::dense;
use crate::flex::exp::sigmoid;
use crate::flex::halves::{Floats, at_most_f32};
use crate::flex::simd::vectorised;

impl Swiglu for Flex {
    fn swiglu(gate: Primitive, up: Primitive) -> Primitive {
        match at_most_f32([&gate, &up]) {
            true => forward(gate, up),
            false => super::forward::<Self>(gate, up),
        }
    }

    fn swiglu_backward(gate: Primitive, up: Primitive, dy: Primitive) -> (Primitive, Primitive) {
        match at_most_f32([&gate, &up, &dy]) {
            true => backward(gate, up, dy),
            false => super::backward::<Self>(gate, up, dy),
        }
    }
}

vectorised! {
    fn gate_block(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((y, &g), &u) in out.iter_mut().zip(gate).zip(up) {
            *y = g * sigmoid(g) * u;
        }
    }

    fn backward_block(
        gate: &[f32],
        up: &[f32],
        dy: &[f32],
        d_gate: &mut [f32],
        d_up: &mut [f32],
    ) {
        let inputs = gate.iter().zip(up).zip(dy);
        for (((&g, &u), &dy), (d_gate, d_up)) in inputs.zip(d_gate.iter_mut().zip(d_up)) {
            let s = sigmoid(g);
            let silu = g * s;
            *d_gate = dy * u * s * (1.0 + g - silu);
            *d_up = dy * silu;
        }
    }
}

fn forward(gate: Primitive, up: Primitive) -> Primitive {
    let (gate, up) = (dense(gate), dense(up));
    let output = Output::like(&gate, 1);
    let [y] = compute([output], |i, [y]| {
        let inputs = [&gate, &up].map(Floats::of_dense);
        read(inputs, i, output.block, |[gate, up]| {
            gate_block(gate, up, y)
        });
    });
    y.tensor(gate.shape())
}

fn backward(gate: Primitive, up: Primitive, dy: Primitive) -> (Primitive, Primitive) {
    let (gate, up, dy) = (dense(gate), dense(up), dense(dy));
    let output = Output::like(&gate, 1);
    let [d_gate, d_up] = compute([output, output], |i, [d_gate, d_up]| {
        let inputs = [&gate, &up, &dy].map(Floats::of_dense);
        read(inputs, i, output.block, |[gate, up, dy]| {
            backward_block(gate, up, dy, d_gate, d_up);
        });
    });
    (d_gate.tensor(gate.shape()), d_up.tensor(gate.shape()))
}
