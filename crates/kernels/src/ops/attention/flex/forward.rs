//! The forward pass: a task of a thread is a block of queries of one head.

use burn::backend::TensorMetadata;
use burn::tensor::Shape;
use rayon::prelude::*;

use super::{Heads, KEYS, Mix, QUERIES, Tile, by_head, drop_weights, rows_by_head, scale, weigh};
use crate::flex::Primitive;
use crate::flex::buffer::{tensor, zeros};
use crate::flex::dropout::fill;
use crate::flex::gemm::{Entry, Then, Threads, View, ViewMut, gemm};

/// The output and each row's `log sum exp`, of tensors of `T` by products of `P`.
pub(super) fn forward<T: Tile<P>, P: Entry>(
    [q, k, v]: [Primitive; 3],
    mix: &Mix,
) -> (Primitive, Primitive) {
    let (visible, scale_by) = (&mix.visible, mix.scale as f32);
    let shape: [usize; 4] = q.shape().dims();
    let [batch, heads, seq, head_dim] = shape;
    let group = heads / k.shape()[1];
    // Weights that dropout keeps are scaled with the sum of all.
    let kept_scale = mix.dropout.map_or(1.0, |mask| mask.scale() as f32);
    let [q, k, v] = [q, k, v].map(Heads::<T>::new);
    let mut out: Vec<T> = zeros(batch * heads * seq * head_dim);
    let mut lse = vec![0.0; batch * heads * seq];

    let mut rows = rows_by_head(&mut out, shape);
    let mut blocks = Vec::new();
    for (i, (rows, lse)) in rows.iter_mut().zip(lse.chunks_mut(seq)).enumerate() {
        let parts = rows.chunks_mut(QUERIES).zip(lse.chunks_mut(QUERIES));
        for (block, (rows, lse)) in parts.enumerate() {
            blocks.push((i / heads, i % heads, block * QUERIES, rows, lse));
        }
    }
    let scratch = || {
        let weights = (vec![0.0; QUERIES * KEYS], Vec::new());
        let operands: [Vec<P>; 2] = Default::default();
        (weights, vec![0.0; QUERIES * head_dim], operands)
    };
    blocks.into_par_iter().for_each_init(
        scratch,
        |((tile, rounded), mixed, [q_tile, kv_tile]), (b, head, first, rows, lse)| {
            let n = rows.len();
            let queries = q.tile((b, head), first, first + n, q_tile);
            let kv_head = (b, head / group);
            let mixed = &mut mixed[..n * head_dim];
            let mut kept = [0.0; KEYS];
            let (mut max, mut sum) = ([f32::NEG_INFINITY; QUERIES], [0.0; QUERIES]);
            let end = visible.end(b, first + n - 1);
            for from in (0..end).step_by(KEYS) {
                let to = (from + KEYS).min(end);
                let keys = to - from;
                let tile = &mut tile[..n * keys];
                let scores = ViewMut::rows(tile, n, keys);
                let k = k.tile(kv_head, from, to, kv_tile).transposed();
                gemm(scores, Then::Replace, scale_by, queries, k, Threads::Caller);
                for (r, scores) in tile.chunks_exact_mut(keys).enumerate() {
                    let seen = visible.within(first + r, from, keys);
                    let fade = weigh(scores, seen, &mut max[r], &mut sum[r]);
                    if let Some(mask) = &mix.dropout {
                        let kept = &mut kept[..seen];
                        fill(
                            mask,
                            ((b * heads + head) * seq + first + r) as u32,
                            from,
                            kept,
                        );
                        drop_weights(&mut scores[..seen], kept);
                    }
                    if from > 0 {
                        scale(&mut mixed[r * head_dim..(r + 1) * head_dim], fade);
                    }
                }
                let then = if from > 0 { Then::Add } else { Then::Replace };
                let v = v.tile(kv_head, from, to, kv_tile);
                let weights = View::rows(P::rounded(tile, rounded), n, keys);
                let to = ViewMut::rows(mixed, n, head_dim);
                gemm(to, then, 1.0, weights, v, Threads::Caller);
            }
            for (r, mixed) in mixed.chunks_exact_mut(head_dim).enumerate() {
                scale(mixed, kept_scale / sum[r]);
                T::write(mixed, rows[r]);
                lse[r] = max[r] + sum[r].ln();
            }
        },
    );
    let lse = tensor(lse, Shape::from(vec![batch, heads, seq]));
    (by_head(out, shape), lse)
}
