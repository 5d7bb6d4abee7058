//! The forward pass.

use burn::backend::TensorMetadata;
use burn::tensor::Shape;
use rayon::prelude::*;

use super::softmax::{Softmax, Tile, drop_weights};
use super::{
    Heads, Kept, Mix, Operand, QUERIES, Rows, Unwritten, by_head, rows_by_head, write_rows,
};
use crate::flex::Primitive;
use crate::flex::buffer::tensor;
use crate::flex::gemm::{Then, Threads, ViewMut, gemm};

/// Some queries of the heads that share a key/value head.
struct Task<'a, 'b, T> {
    batch: usize,
    kv_head: usize,
    /// The first query.
    first: usize,
    /// For each head, the rows of the output and their `log sum exp`.
    heads: Vec<(&'a mut [Unwritten<'b, T>], &'a mut [f32])>,
}

/// Buffers of a thread that multiplies values of `P`.
#[derive(Default)]
struct Scratch<P> {
    keys: Vec<P>,
    values: Vec<P>,
    queries: Vec<P>,
    turned: Vec<P>,
    /// Scores, then weights.
    weights: Vec<f32>,
    rounded: Vec<P>,
    kept: Kept,
    mixed: Vec<f32>,
}

/// The output and each row's `log sum exp`, of tensors of `T` by products of `P`.
pub(super) fn forward<T: Rows<P>, P: Operand>(
    [q, k, v]: [Primitive; 3],
    mix: &Mix,
) -> (Primitive, Primitive) {
    let shape: [usize; 4] = q.shape().dims();
    let [batch, heads, seq, head_dim] = shape;
    let kv_heads = k.shape()[1];
    let group = heads / kv_heads;
    let mut out: Vec<T> = Vec::with_capacity(batch * heads * seq * head_dim);
    let mut lse = vec![0.0; batch * heads * seq];

    let part = queries_per_task(batch * kv_heads, seq);
    let mut rows = rows_by_head(&mut out, shape);
    let mut tasks = Vec::new();
    for (i, (rows, lse)) in rows
        .chunks_mut(group)
        .zip(lse.chunks_mut(group * seq))
        .enumerate()
    {
        let of_heads = rows.iter_mut().zip(lse.chunks_mut(seq));
        let mut parts: Vec<_> = of_heads
            .map(|(rows, lse)| rows.chunks_mut(part).zip(lse.chunks_mut(part)))
            .collect();
        for first in (0..seq).step_by(part) {
            tasks.push(Task {
                batch: i / kv_heads,
                kv_head: i % kv_heads,
                first,
                heads: parts.iter_mut().filter_map(Iterator::next).collect(),
            });
        }
    }
    let operands = [q, k, v].map(Heads::<T>::new);
    tasks
        .into_par_iter()
        .for_each_init(Scratch::default, |scratch, task| {
            attend(&operands, mix, task, scratch)
        });
    drop(rows);
    // SAFETY: each task has written all of its rows, and all rows belong to a task.
    unsafe { out.set_len(batch * heads * seq * head_dim) };
    let lse = tensor(lse, Shape::from(vec![batch, heads, seq]));
    (by_head(out, shape), lse)
}

/// As many queries as leave every thread several tasks: all of them, unless there are few heads.
fn queries_per_task(heads: usize, seq: usize) -> usize {
    let parts = (4 * rayon::current_num_threads()).div_ceil(heads);
    seq.div_ceil(parts).next_multiple_of(QUERIES)
}

fn attend<T: Rows<P>, P: Operand>(
    [q, k, v]: &[Heads<T>; 3],
    mix: &Mix,
    task: Task<T>,
    scratch: &mut Scratch<P>,
) {
    let (visible, scale_by) = (&mix.visible, mix.scale as f32);
    // Weights that dropout keeps are scaled with the sum of all.
    let kept_scale = mix.dropout.map_or(1.0, |mask| mask.scale() as f32);
    let (batch, head_dim) = (task.batch, q.head_dim);
    let group = task.heads.len();
    let queries = task.heads.first().map_or(0, |(rows, _)| rows.len());
    let end = visible.end(batch, task.first + queries - 1);
    let keys = k.rows((batch, task.kv_head), 0..end, &mut scratch.keys);
    let values = v.rows((batch, task.kv_head), 0..end, &mut scratch.values);
    scratch.mixed.resize(QUERIES * head_dim, 0.0);
    for (g, (rows, lse)) in task.heads.into_iter().enumerate() {
        let head = task.kv_head * group + g;
        let blocks = rows.chunks_mut(P::QUERIES).zip(lse.chunks_mut(P::QUERIES));
        for (first, (rows, lse)) in (task.first..).step_by(P::QUERIES).zip(blocks) {
            let n = rows.len();
            let queries = q.rows((batch, head), first..first + n, &mut scratch.queries);
            let queries = P::turned(queries, &mut scratch.turned);
            let mixed = &mut scratch.mixed[..n * head_dim];
            let mut softmax = Softmax::new();
            for tile in Tile::of_block(visible, batch, first, n) {
                let weights = tile.of(&mut scratch.weights);
                gemm(
                    tile.view_mut(weights),
                    Then::Replace,
                    scale_by,
                    keys.part(tile.keys.clone()),
                    queries,
                    Threads::Caller,
                );
                tile.hide(weights, f32::NEG_INFINITY);
                softmax.weigh(weights, tile.width);
                if let Some(mask) = &mix.dropout {
                    let row = (batch * q.heads + head) * q.seq + first;
                    let kept = scratch.kept.tile(mask, row, n, tile.keys.clone());
                    drop_weights(weights, tile.width, kept, n, 1.0);
                }
                let then = match tile.is_first() {
                    true => Then::Replace,
                    false => {
                        softmax.fade(mixed, head_dim);
                        Then::Add
                    }
                };
                let weights = tile.view(P::rounded(weights, &mut scratch.rounded));
                gemm(
                    ViewMut::rows(mixed, n, head_dim),
                    then,
                    1.0,
                    weights.transposed(),
                    values.part(tile.keys),
                    Threads::Caller,
                );
            }
            softmax.normalise(mixed, head_dim, kept_scale);
            write_rows(rows, mixed);
            for (r, lse) in lse.iter_mut().enumerate() {
                *lse = softmax.lse(r);
            }
        }
    }
}
