//! Attention by tiles of queries and keys (arXiv 2307.08691, algorithms 1 and 2).
//!
//! A tile of scores is one matrix product, small enough for the L2 cache; tiles above the diagonal
//! and tiles of padding are never computed. Scores are kept transposed, a row for each key: what the softmax does with a row of
//! scores is then done with many rows at once, and sums over keys need no sums within a vector. A task of a thread has
//! the queries of the heads that share a key/value head, or a part of them, and copies its keys and values once.
//!
//! Weights and their gradients are computed in f32. Where the processor multiplies tiles of bf16, products of bf16
//! tensors read them as they are, and weights rounded to bf16; elsewhere half precision is widened to f32 in the copies.

mod backward;
mod forward;
mod softmax;

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, Shape, bf16, f16};

use super::{Attention, Mix};
use crate::dropout::DropoutMask;
use crate::flex::Primitive;
use crate::flex::buffer::{all_f32, dense, tensor, zeroed};
use crate::flex::dropout::fill;
use crate::flex::gemm::{Entry, Turned, View};
use crate::flex::halves::{as_f32, rounded};
use crate::flex::products::Products;
use crate::flex::simd::prefetch;

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

/// The maximum number of queries per tile.
const QUERIES: usize = 64;
/// Keys per tile.
const KEYS: usize = 128;
/// Prefetch distance in rows.
const AHEAD: usize = 8;

/// Types that tiles are multiplied in.
trait Operand: Turned {
    /// Queries per tile: as few as give an efficient product, because half of a tile on the diagonal is wasted.
    const QUERIES: usize;
}

impl Operand for f32 {
    const QUERIES: usize = 32;
}

impl Operand for bf16 {
    const QUERIES: usize = QUERIES;
}

/// Tensors whose rows can be multiplied as `P`.
trait Rows<P>: Entry {
    /// The rows as an operand of several products: as they are, or copied to the buffer without gaps.
    fn rows<'a>(x: View<'a, Self>, buffer: &'a mut Vec<P>) -> View<'a, P>;
}

impl Rows<bf16> for bf16 {
    fn rows<'a>(x: View<'a, bf16>, _: &'a mut Vec<bf16>) -> View<'a, bf16> {
        x
    }
}

impl<T: Entry> Rows<f32> for T {
    fn rows<'a>(x: View<'a, T>, buffer: &'a mut Vec<f32>) -> View<'a> {
        let [rows, columns] = x.shape();
        buffer.clear();
        buffer.reserve(rows * columns);
        for i in 0..rows {
            // The rows of a head are too far apart for the hardware prefetcher.
            if i + AHEAD < rows {
                for line in x.row(i + AHEAD).chunks(64 / size_of::<T>()) {
                    prefetch(line.as_ptr());
                }
            }
            buffer.resize((i + 1) * columns, 0.0);
            T::widen(x.row(i), &mut buffer[i * columns..]);
        }
        View::rows(buffer, rows, columns)
    }
}

/// Rows of head_dim values for each position of each head, with any order of the first three axes.
struct Heads<T> {
    tensor: Primitive,
    heads: usize,
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
        let [_, heads, seq, head_dim] = tensor.shape().dims();
        let stride = |axis: usize| tensor.layout().strides()[axis].unsigned_abs();
        Self {
            strides: [stride(0), stride(1), stride(2)],
            tensor,
            heads,
            seq,
            head_dim,
            of: PhantomData,
        }
    }

    /// Positions of a head, `[positions, head_dim]`. The buffer is for those that are copied.
    fn rows<'a, P>(
        &'a self,
        (batch, head): (usize, usize),
        positions: Range<usize>,
        buffer: &'a mut Vec<P>,
    ) -> View<'a, P>
    where
        T: Rows<P>,
    {
        debug_assert!(positions.start <= positions.end && positions.end <= self.seq);
        let [b, h, s] = self.strides;
        let data = &T::memory(&self.tensor)[batch * b + head * h + positions.start * s..];
        T::rows(
            View::new(data, [positions.len(), self.head_dim], [s, 1]),
            buffer,
        )
    }

    fn row(&self, batch: usize, head: usize, position: usize) -> &[T] {
        let [b, h, s] = self.strides;
        &T::memory(&self.tensor)[batch * b + head * h + position * s..][..self.head_dim]
    }
}

/// A row of a result.
type Unwritten<'a, T> = &'a mut [MaybeUninit<T>];

/// The rows of `[batch, seq, heads, head_dim]`, by head, so that threads write disjoint parts. The vector has capacity
/// for them.
fn rows_by_head<T>(
    out: &mut Vec<T>,
    [batch, heads, seq, head_dim]: [usize; 4],
) -> Vec<Vec<Unwritten<'_, T>>> {
    let mut rows: Vec<Vec<_>> = (0..batch * heads)
        .map(|_| Vec::with_capacity(seq))
        .collect();
    let out = &mut out.spare_capacity_mut()[..batch * heads * seq * head_dim];
    for (i, row) in out.chunks_exact_mut(head_dim).enumerate() {
        let (b, head) = (i / (seq * heads), i % heads);
        rows[b * heads + head].push(row);
    }
    rows
}

/// Writes rows, rounded to their type.
fn write_rows<T: Entry>(rows: &mut [Unwritten<T>], from: &[f32]) {
    let Some(length) = rows.first().map(|row| row.len()) else {
        return;
    };
    for (row, from) in rows.iter_mut().zip(from.chunks_exact(length)) {
        T::write(from, zeroed(row, T::default()));
    }
}

/// The tensor `[batch, heads, seq, head_dim]` of values in the order of [`rows_by_head`].
fn by_head<T: Entry>(values: Vec<T>, [batch, heads, seq, head_dim]: [usize; 4]) -> Primitive {
    tensor(values, Shape::from(vec![batch, seq, heads, head_dim])).transpose(1, 2)
}

/// A tile's mask of dropout, 1 where a weight is kept and 0 where it is dropped, transposed as the scores are.
#[derive(Default)]
struct Kept {
    rows: Vec<f32>,
    turned: Vec<f32>,
}

impl Kept {
    /// The mask of some keys and of the queries of rows `row..`, `[keys, queries]`.
    fn tile(
        &mut self,
        mask: &DropoutMask,
        row: usize,
        queries: usize,
        keys: Range<usize>,
    ) -> &[f32] {
        self.rows.resize(QUERIES * KEYS, 0.0);
        let rows = &mut self.rows[..queries * keys.len()];
        for (r, kept) in rows.chunks_exact_mut(keys.len()).enumerate() {
            fill(mask, (row + r) as u32, keys.start, kept);
        }
        let rows = View::rows(rows, queries, keys.len());
        f32::turned(rows, &mut self.turned);
        &self.turned
    }
}
