//! Attention by tiles of queries and keys (arXiv 2307.08691, algorithms 1 and 2).
//!
//! A tile of scores is one matrix product, small enough for the L2 cache; tiles above the diagonal
//! and tiles of padding are never computed. Weights and their gradients are computed in f32. Where the processor
//! multiplies tiles of bf16, products of bf16 tensors read them as they are, and weights rounded to bf16;
//! elsewhere tiles of half precision are widened to f32 when they are read.

mod backward;
mod forward;

use std::marker::PhantomData;

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, Shape, bf16, f16};

use super::{Attention, Mix};
use crate::flex::Primitive;
use crate::flex::buffer::{all_f32, dense, tensor};
use crate::flex::exp::exp;
use crate::flex::gemm::{Entry, View};
use crate::flex::halves::{as_f32, rounded};
use crate::flex::products::Products;
use crate::flex::simd::{larger, map_sum, reduce, vectorised};

impl Attention for Flex {
    fn attend(q: Primitive, k: Primitive, v: Primitive, mix: &Mix) -> (Primitive, Primitive) {
        let operands = [q, k, v];
        match products_of(&operands) {
            Some(Tiles::Bf16) => forward::forward::<bf16, bf16>(operands, mix),
            Some(Tiles::WidenedBf16) => forward::forward::<bf16, f32>(operands, mix),
            Some(Tiles::WidenedF16) => forward::forward::<f16, f32>(operands, mix),
            None => match as_f32(operands) {
                Ok((operands, dtype)) => {
                    let (y, lse) = forward::forward::<f32, f32>(operands, mix);
                    (rounded(y, dtype), lse)
                }
                Err([q, k, v]) => super::forward::<Self>(q, k, v, mix),
            },
        }
    }

    fn attend_backward(
        q: Primitive,
        k: Primitive,
        v: Primitive,
        out: Primitive,
        lse: Primitive,
        dy: Primitive,
        mix: &Mix,
    ) -> (Primitive, Primitive, Primitive) {
        if !all_f32(&[&lse]) {
            return super::backward::<Self>(q, k, v, out, lse, dy, mix);
        }
        let operands = [q, k, v, out, dy];
        match products_of(&operands) {
            Some(Tiles::Bf16) => backward::backward::<bf16, bf16>(operands, lse, mix),
            Some(Tiles::WidenedBf16) => backward::backward::<bf16, f32>(operands, lse, mix),
            Some(Tiles::WidenedF16) => backward::backward::<f16, f32>(operands, lse, mix),
            None => match as_f32(operands) {
                Ok((operands, dtype)) => {
                    let (dq, dk, dv) = backward::backward::<f32, f32>(operands, lse, mix);
                    (rounded(dq, dtype), rounded(dk, dtype), rounded(dv, dtype))
                }
                Err([q, k, v, out, dy]) => super::backward::<Self>(q, k, v, out, lse, dy, mix),
            },
        }
    }
}

/// How tiles of half precision are multiplied.
enum Tiles {
    Bf16,
    WidenedBf16,
    WidenedF16,
}

/// `None` for tensors that are not all of the same half precision.
fn products_of(operands: &[Primitive]) -> Option<Tiles> {
    let all = |dtype| operands.iter().all(|x| x.dtype() == dtype);
    if all(DType::F16) {
        Some(Tiles::WidenedF16)
    } else if !all(DType::BF16) {
        None
    } else if multiplies_tiles_of_bf16() {
        Some(Tiles::Bf16)
    } else {
        Some(Tiles::WidenedBf16)
    }
}

/// Whether products of bf16 as small as a tile are faster than those of f32.
fn multiplies_tiles_of_bf16() -> bool {
    Products::in_use() == Products::Amx
}

/// Queries per tile: as few as give an efficient product, because half of a tile on the diagonal is
/// wasted.
const QUERIES: usize = 64;
/// Keys per tile.
const KEYS: usize = 128;

/// Tensors whose tiles can be multiplied as `P`.
trait Tile<P>: Entry {
    /// Rows of a stride, as they are or widened to the buffer.
    fn tile<'a>(
        data: &'a [Self],
        shape: [usize; 2],
        stride: usize,
        buffer: &'a mut Vec<P>,
    ) -> View<'a, P>;
}

impl<T: Entry> Tile<T> for T {
    fn tile<'a>(data: &'a [T], shape: [usize; 2], stride: usize, _: &'a mut Vec<T>) -> View<'a, T> {
        View::new(data, shape, [stride, 1])
    }
}

macro_rules! widened {
    ($half:ty) => {
        impl Tile<f32> for $half {
            fn tile<'a>(
                data: &'a [Self],
                [rows, columns]: [usize; 2],
                stride: usize,
                buffer: &'a mut Vec<f32>,
            ) -> View<'a, f32> {
                buffer.resize(rows * columns, 0.0);
                for (row, to) in buffer.chunks_exact_mut(columns).enumerate() {
                    Self::read(&data[row * stride..][..columns], to);
                }
                View::rows(buffer, rows, columns)
            }
        }
    };
}
widened!(bf16);
widened!(f16);

/// Rows of head_dim values for each position of each head, with any order of the first three axes.
struct Heads<T> {
    tensor: Primitive,
    seq: usize,
    head_dim: usize,
    /// Strides of batch, head and position.
    strides: [usize; 3],
    of: PhantomData<T>,
}

impl<T: Entry> Heads<T> {
    fn new(x: Primitive) -> Self {
        let as_it_lies =
            x.layout().strides()[3] == 1 && x.layout().strides().iter().all(|&s| s >= 0);
        let tensor = if as_it_lies {
            x
        } else {
            dense(x.to_contiguous())
        };
        let [_, _, seq, head_dim] = tensor.shape().dims();
        let stride = |axis: usize| tensor.layout().strides()[axis].unsigned_abs();
        Self {
            strides: [stride(0), stride(1), stride(2)],
            tensor,
            seq,
            head_dim,
            of: PhantomData,
        }
    }

    /// Positions `from..to` of a head, `[to - from, head_dim]`. The buffer is for those that are widened.
    fn tile<'a, P>(
        &'a self,
        (batch, head): (usize, usize),
        from: usize,
        to: usize,
        buffer: &'a mut Vec<P>,
    ) -> View<'a, P>
    where
        T: Tile<P>,
    {
        debug_assert!(from <= to && to <= self.seq);
        let [b, h, s] = self.strides;
        let data = &T::memory(&self.tensor)[batch * b + head * h + from * s..];
        T::tile(data, [to - from, self.head_dim], s, buffer)
    }

    fn row(&self, batch: usize, head: usize, position: usize) -> &[T] {
        let [b, h, s] = self.strides;
        &T::memory(&self.tensor)[batch * b + head * h + position * s..][..self.head_dim]
    }
}

/// The rows of `[batch, seq, heads, head_dim]`, by head, so that threads write disjoint parts.
fn rows_by_head<T>(out: &mut [T], [batch, heads, seq, head_dim]: [usize; 4]) -> Vec<Vec<&mut [T]>> {
    let mut rows: Vec<Vec<_>> = (0..batch * heads)
        .map(|_| Vec::with_capacity(seq))
        .collect();
    for (i, row) in out.chunks_exact_mut(head_dim).enumerate() {
        let (b, head) = (i / (seq * heads), i % heads);
        rows[b * heads + head].push(row);
    }
    rows
}

/// The tensor `[batch, heads, seq, head_dim]` of values in the order of [`rows_by_head`].
fn by_head<T: Entry>(values: Vec<T>, [batch, heads, seq, head_dim]: [usize; 4]) -> Primitive {
    tensor(values, Shape::from(vec![batch, seq, heads, head_dim])).transpose(1, 2)
}

vectorised! {
    /// Turns scores into weights relative to the largest score so far; those from `visible` on
    /// become zero. Returns the factor for the earlier weights.
    fn weigh(scores: &mut [f32], visible: usize, max: &mut f32, sum: &mut f32) -> f32 {
        let (scores, hidden) = scores.split_at_mut(visible);
        hidden.fill(0.0);
        if scores.is_empty() {
            return 1.0;
        }
        let largest = larger(reduce(scores, f32::NEG_INFINITY, |s| s, larger), *max);
        let fade = exp(*max - largest);
        *max = largest;
        *sum = *sum * fade + map_sum(scores, |s| exp(s - largest));
        fade
    }

    /// Drops weights of the row, which are not scaled.
    fn drop_weights(weights: &mut [f32], kept: &[f32]) {
        for (weight, kept) in weights.iter_mut().zip(kept) {
            *weight *= kept;
        }
    }

    fn scale(row: &mut [f32], factor: f32) {
        for x in row {
            *x *= factor;
        }
    }
}
