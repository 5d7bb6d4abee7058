//! Rotation of rows in place, with heads and positions in either order.

use burn::backend::{Flex, TensorMetadata};

use super::Rotate;
use crate::flex::Primitive;
use crate::flex::blocks::{Output, compute, read};
use crate::flex::buffer::{all_f32, dense, for_blocks, owned, values, values_mut};
use crate::flex::halves::{Floats, at_most_f32, widened};
use crate::flex::simd::vectorised;

impl Rotate for Flex {
    fn rotate(x: Primitive, cos: Primitive, sin: Primitive, inverse: bool) -> Primitive {
        match at_most_f32([&x, &cos, &sin]) {
            true => rotate(x, widened(cos), widened(sin), inverse),
            false => super::forward::<Self>(x, cos, sin, inverse),
        }
    }
}

vectorised! {
    /// Rotates one head's vector by `sign` times its position's angles.
    fn turn_row(row: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
        let (a, b) = row.split_at_mut(cos.len());
        for (((a, b), &cos), &sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
            let sin = sign * sin;
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}

fn rotate(x: Primitive, cos: Primitive, sin: Primitive, inverse: bool) -> Primitive {
    let [_, heads, seq, head_dim] = x.shape().dims();
    // Restores the layout of a view of `[batch, seq, heads, head_dim]`.
    let swapped = x.transpose(1, 2);
    let by_position = swapped.is_contiguous();
    let x = if by_position {
        drop(x);
        swapped
    } else {
        drop(swapped);
        dense(x)
    };
    let (cos, sin) = (dense(cos), dense(sin));
    let (cos, sin) = (values(&cos), values(&sin));
    let sign = if inverse { -1.0 } else { 1.0 };
    let output = Output::like(&x, head_dim);
    let turn = |i: usize, rows: &mut [f32]| {
        let first = i * (output.block / head_dim);
        for (row, number) in rows.chunks_exact_mut(head_dim).zip(first..) {
            let position = if by_position {
                number / heads % seq
            } else {
                number % seq
            };
            let angles = position * head_dim / 2..(position + 1) * head_dim / 2;
            turn_row(row, &cos[angles.clone()], &sin[angles], sign);
        }
    };
    let y = if all_f32(&[&x]) && x.is_unique() {
        let mut x = owned(x);
        for_blocks(values_mut(&mut x), output.block, turn);
        x
    } else {
        let [y] = compute([output], |i, [y]| {
            read([Floats::of_dense(&x)], i, output.block, |[x]| {
                y.copy_from_slice(x)
            });
            turn(i, y);
        });
        y.tensor(x.shape())
    };
    if by_position { y.transpose(1, 2) } else { y }
}
