//! Attention by tiles of queries and keys (arXiv 2307.08691, algorithms 1 and 2).
//!
//! A tile of scores is one matrix product, small enough for the L2 cache; tiles above the diagonal
//! and tiles of padding are never computed. In the forward pass, a task of a thread is a block of queries of one head.
//! In the backward pass it is a key/value head with all its query heads, so that the gradients to
//! keys and values are summed by one thread in a fixed order.

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Shape;
use rayon::prelude::*;

use super::{Attention, Mix};
use crate::flex::Primitive;
use crate::flex::buffer::{all_f32, dense, tensor, values, zeros};
use crate::flex::exp::exp;
use crate::flex::gemm::{Then, Threads, View, ViewMut, gemm};
use crate::flex::halves::{as_f32, rounded};
use crate::flex::simd::{larger, map_sum, reduce, sum2, vectorised};

impl Attention for Flex {
    fn attend(q: Primitive, k: Primitive, v: Primitive, mix: &Mix) -> (Primitive, Primitive) {
        match as_f32([q, k, v]) {
            Ok((operands, dtype)) => {
                let (y, lse) = forward(operands, mix);
                (rounded(y, dtype), lse)
            }
            Err([q, k, v]) => super::forward::<Self>(q, k, v, mix),
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
        match as_f32([q, k, v, out, dy]) {
            Ok((operands, dtype)) => {
                let (dq, dk, dv) = backward(operands, lse, mix);
                (rounded(dq, dtype), rounded(dk, dtype), rounded(dv, dtype))
            }
            Err([q, k, v, out, dy]) => super::backward::<Self>(q, k, v, out, lse, dy, mix),
        }
    }
}

/// Queries per tile: as few as give an efficient product, because half of a tile on the diagonal is
/// wasted.
const QUERIES: usize = 64;
/// Keys per tile.
const KEYS: usize = 128;

/// Rows of head_dim values for each position of each head, with any order of the first three axes.
struct Heads {
    tensor: Primitive,
    seq: usize,
    head_dim: usize,
    /// Strides of batch, head and position.
    strides: [usize; 3],
}

impl Heads {
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
        }
    }

    /// Positions `from..to` of a head, `[to - from, head_dim]`.
    fn view(&self, batch: usize, head: usize, from: usize, to: usize) -> View<'_> {
        debug_assert!(from <= to && to <= self.seq);
        let [b, h, s] = self.strides;
        let start = self.tensor.layout().start_offset() + batch * b + head * h + from * s;
        let data = &self.tensor.storage::<f32>()[start..];
        View::new(data, [to - from, self.head_dim], [s, 1])
    }

    fn row(&self, batch: usize, head: usize, position: usize) -> &[f32] {
        let [b, h, s] = self.strides;
        let start = self.tensor.layout().start_offset() + batch * b + head * h + position * s;
        &self.tensor.storage::<f32>()[start..start + self.head_dim]
    }
}

/// The rows of `[batch, seq, heads, head_dim]`, by head, so that threads write disjoint parts.
fn rows_by_head(
    out: &mut [f32],
    [batch, heads, seq, head_dim]: [usize; 4],
) -> Vec<Vec<&mut [f32]>> {
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
fn by_head(values: Vec<f32>, [batch, heads, seq, head_dim]: [usize; 4]) -> Primitive {
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

    fn scale(row: &mut [f32], factor: f32) {
        for x in row {
            *x *= factor;
        }
    }

    fn scale_to(out: &mut [f32], row: &[f32], factor: f32) {
        for (y, &x) in out.iter_mut().zip(row) {
            *y = factor * x;
        }
    }

    fn dot(x: &[f32], y: &[f32]) -> f32 {
        sum2(x, y, |x, y| x * y)
    }

    /// Turns scores into weights, and the weights' gradients into the scores'.
    fn differentiate(scores: &mut [f32], dp: &mut [f32], visible: usize, lse: f32, delta: f32) {
        let (scores, hidden) = scores.split_at_mut(visible);
        let (dp, d_hidden) = dp.split_at_mut(visible);
        hidden.fill(0.0);
        d_hidden.fill(0.0);
        for (s, dp) in scores.iter_mut().zip(dp) {
            let p = exp(*s - lse);
            *dp = p * (*dp - delta);
            *s = p;
        }
    }
}

fn forward([q, k, v]: [Primitive; 3], mix: &Mix) -> (Primitive, Primitive) {
    let (visible, scale_by) = (&mix.visible, mix.scale as f32);
    let shape: [usize; 4] = q.shape().dims();
    let [batch, heads, seq, head_dim] = shape;
    let group = heads / k.shape()[1];
    let (q, k, v) = (Heads::new(q), Heads::new(k), Heads::new(v));
    let mut out = zeros(batch * heads * seq * head_dim);
    let mut lse = vec![0.0; batch * heads * seq];

    let mut rows = rows_by_head(&mut out, shape);
    let mut blocks = Vec::new();
    for (i, (rows, lse)) in rows.iter_mut().zip(lse.chunks_mut(seq)).enumerate() {
        let parts = rows.chunks_mut(QUERIES).zip(lse.chunks_mut(QUERIES));
        for (block, (rows, lse)) in parts.enumerate() {
            blocks.push((i / heads, i % heads, block * QUERIES, rows, lse));
        }
    }
    let scratch = || (vec![0.0; QUERIES * KEYS], vec![0.0; QUERIES * head_dim]);
    blocks
        .into_par_iter()
        .for_each_init(scratch, |(tile, mixed), (b, head, first, rows, lse)| {
            let n = rows.len();
            let queries = q.view(b, head, first, first + n);
            let mixed = &mut mixed[..n * head_dim];
            let (mut max, mut sum) = ([f32::NEG_INFINITY; QUERIES], [0.0; QUERIES]);
            let end = visible.end(b, first + n - 1);
            for from in (0..end).step_by(KEYS) {
                let to = (from + KEYS).min(end);
                let keys = to - from;
                let tile = &mut tile[..n * keys];
                let scores = ViewMut::rows(tile, n, keys);
                let k = k.view(b, head / group, from, to).transposed();
                gemm(scores, Then::Replace, scale_by, queries, k, Threads::Caller);
                for (r, scores) in tile.chunks_exact_mut(keys).enumerate() {
                    let seen = visible.within(first + r, from, keys);
                    let fade = weigh(scores, seen, &mut max[r], &mut sum[r]);
                    if from > 0 {
                        scale(&mut mixed[r * head_dim..(r + 1) * head_dim], fade);
                    }
                }
                let then = if from > 0 { Then::Add } else { Then::Replace };
                let v = v.view(b, head / group, from, to);
                let weights = View::rows(tile, n, keys);
                let to = ViewMut::rows(mixed, n, head_dim);
                gemm(to, then, 1.0, weights, v, Threads::Caller);
            }
            for (r, mixed) in mixed.chunks_exact(head_dim).enumerate() {
                scale_to(rows[r], mixed, 1.0 / sum[r]);
                lse[r] = max[r] + sum[r].ln();
            }
        });
    let lse = tensor(lse, Shape::from(vec![batch, heads, seq]));
    (by_head(out, shape), lse)
}

/// Buffers for a task of the backward pass.
struct Scratch {
    /// Scores, then weights.
    p: Vec<f32>,
    /// Gradients to the weights, then to the scores.
    ds: Vec<f32>,
    dq: Vec<f32>,
    /// Of a whole key/value head.
    dk: Vec<f32>,
    dv: Vec<f32>,
}

fn backward(
    [q, k, v, out, dy]: [Primitive; 5],
    lse: Primitive,
    mix: &Mix,
) -> (Primitive, Primitive, Primitive) {
    let (visible, scale_by) = (&mix.visible, mix.scale as f32);
    let shape: [usize; 4] = q.shape().dims();
    let kv_shape: [usize; 4] = k.shape().dims();
    let [batch, heads, seq, head_dim] = shape;
    let [_, kv_heads, kv_seq, _] = kv_shape;
    let group = heads / kv_heads;
    let [q, k, v, out, dy] = [q, k, v, out, dy].map(Heads::new);
    let lse = dense(lse);
    let lse = values(&lse);

    let mut dq = zeros(batch * heads * seq * head_dim);
    let mut dk = zeros(batch * kv_heads * kv_seq * head_dim);
    let mut dv = zeros(batch * kv_heads * kv_seq * head_dim);
    let mut dq_rows = rows_by_head(&mut dq, shape);
    let scratch = || Scratch {
        p: vec![0.0; QUERIES * KEYS],
        ds: vec![0.0; QUERIES * KEYS],
        dq: vec![0.0; QUERIES * head_dim],
        dk: vec![0.0; kv_seq * head_dim],
        dv: vec![0.0; kv_seq * head_dim],
    };
    dq_rows
        .par_chunks_mut(group)
        .zip(rows_by_head(&mut dk, kv_shape))
        .zip(rows_by_head(&mut dv, kv_shape))
        .enumerate()
        .for_each_init(scratch, |scratch, (i, ((dq_rows, dk_rows), dv_rows))| {
            let (b, kv_head) = (i / kv_heads, i % kv_heads);
            scratch.dk.fill(0.0);
            scratch.dv.fill(0.0);
            let blocks = dq_rows.iter_mut().enumerate().flat_map(|(g, rows)| {
                let blocks = rows.chunks_mut(QUERIES).enumerate();
                blocks.map(move |(block, rows)| (kv_head * group + g, block * QUERIES, rows))
            });
            for (head, first, rows) in blocks {
                let n = rows.len();
                let mut delta = [0.0; QUERIES];
                for (r, delta) in delta[..n].iter_mut().enumerate() {
                    *delta = dot(out.row(b, head, first + r), dy.row(b, head, first + r));
                }
                let lse = &lse[(b * heads + head) * seq + first..][..n];
                let queries = q.view(b, head, first, first + n);
                let dy = dy.view(b, head, first, first + n);
                let end = visible.end(b, first + n - 1);
                for from in (0..end).step_by(KEYS) {
                    let to = (from + KEYS).min(end);
                    let keys = to - from;
                    let k = k.view(b, kv_head, from, to);
                    let v = v.view(b, kv_head, from, to).transposed();
                    let (p, ds) = (&mut scratch.p[..n * keys], &mut scratch.ds[..n * keys]);
                    let one = Threads::Caller;
                    let scores = ViewMut::rows(p, n, keys);
                    gemm(
                        scores,
                        Then::Replace,
                        scale_by,
                        queries,
                        k.transposed(),
                        one,
                    );
                    gemm(ViewMut::rows(ds, n, keys), Then::Replace, 1.0, dy, v, one);
                    let rows = p.chunks_exact_mut(keys).zip(ds.chunks_exact_mut(keys));
                    for (r, (p, ds)) in rows.enumerate() {
                        let seen = visible.within(first + r, from, keys);
                        differentiate(p, ds, seen, lse[r], delta[r]);
                    }
                    let (p, ds) = (View::rows(p, n, keys), View::rows(ds, n, keys));
                    let then = if from > 0 { Then::Add } else { Then::Replace };
                    let dq = ViewMut::rows(&mut scratch.dq, n, head_dim);
                    gemm(dq, then, scale_by, ds, k, one);
                    let part = from * head_dim..to * head_dim;
                    let dk = ViewMut::rows(&mut scratch.dk[part.clone()], keys, head_dim);
                    gemm(dk, Then::Add, scale_by, ds.transposed(), queries, one);
                    let dv = ViewMut::rows(&mut scratch.dv[part], keys, head_dim);
                    gemm(dv, Then::Add, 1.0, p.transposed(), dy, one);
                }
                copy_rows(rows, &scratch.dq);
            }
            copy_rows(&mut { dk_rows }, &scratch.dk);
            copy_rows(&mut { dv_rows }, &scratch.dv);
        });
    drop(dq_rows);
    (
        by_head(dq, shape),
        by_head(dk, kv_shape),
        by_head(dv, kv_shape),
    )
}

fn copy_rows(rows: &mut [&mut [f32]], from: &[f32]) {
    let Some(length) = rows.first().map(|row| row.len()) else {
        return;
    };
    for (row, from) in rows.iter_mut().zip(from.chunks_exact(length)) {
        row.copy_from_slice(from);
    }
}
