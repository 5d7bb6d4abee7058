//! The backward pass: a task of a thread is a key/value head with a part of the queries of its query heads. It sums
//! their gradients to keys and values in a fixed order, and the parts' sums are added in order.

use burn::backend::TensorMetadata;
use rayon::prelude::*;

use super::softmax::{Tile, differentiate, drop_weights};
use super::{
    Heads, Kept, Mix, Operand, QUERIES, Rows, Unwritten, by_head, rows_by_head, write_rows,
};
use crate::flex::Primitive;
use crate::flex::buffer::{dense, values};
use crate::flex::gemm::{Entry, Then, Threads, ViewMut, gemm};
use crate::flex::simd::{sum2, vectorised};

/// Queries of a task: enough that clearing and adding up its sums takes little of its time.
const PART: usize = 512;
/// The maximum number of parts, each of which holds gradients to all keys and values.
const PARTS: usize = 4;

vectorised! {
    fn dot(x: &[f32], y: &[f32]) -> f32 {
        sum2(x, y, |x, y| x * y)
    }

    fn add(sum: &mut [f32], part: &[f32]) {
        for (s, p) in sum.iter_mut().zip(part) {
            *s += p;
        }
    }
}

/// Some queries of the heads that share a key/value head.
struct Task<'a, 'b, T> {
    batch: usize,
    kv_head: usize,
    /// The first query.
    first: usize,
    /// For each head, the gradients to its queries.
    dq: Vec<&'a mut [Unwritten<'b, T>]>,
    sums: Sums<'a, 'b, T>,
}

/// Where a task leaves the gradients to all keys of its head, and to all values.
enum Sums<'a, 'b, T> {
    /// The rows of both results, if all queries are the task's.
    Rows([&'a mut [Unwritten<'b, T>]; 2]),
    /// Its share of both, one after the other.
    Part(Unwritten<'a, f32>),
}

/// Buffers of a thread that multiplies values of `P`.
#[derive(Default)]
struct Scratch<P> {
    /// Scores, then weights.
    p: Vec<f32>,
    /// Gradients to the weights, then to the scores.
    ds: Vec<f32>,
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
    /// The first two as operands of products.
    rounded_p: Vec<P>,
    rounded_ds: Vec<P>,
    keys: Vec<P>,
    values: Vec<P>,
    queries: Vec<P>,
    turned_queries: Vec<P>,
    dy: Vec<P>,
    turned_dy: Vec<P>,
    kept: Kept,
    /// A row of the output and one of its gradient, in f32.
    rows: [Vec<f32>; 2],
}

/// Gradients to queries, keys and values, of tensors of `T` by products of `P`.
pub(super) fn backward<T: Rows<P>, P: Operand>(
    [q, k, v, out, dy]: [Primitive; 5],
    lse: Primitive,
    mix: &Mix,
) -> (Primitive, Primitive, Primitive) {
    let shape: [usize; 4] = q.shape().dims();
    let kv_shape: [usize; 4] = k.shape().dims();
    let [batch, heads, seq, head_dim] = shape;
    let [_, kv_heads, kv_seq, _] = kv_shape;
    let lse = dense(lse);
    let inputs = Inputs {
        operands: [q, k, v, out, dy].map(Heads::<T>::new),
        lse: values(&lse),
        group: heads / kv_heads,
        mix,
    };

    let part = seq.div_ceil(PARTS).next_multiple_of(QUERIES).max(PART);
    let parts = seq.div_ceil(part);
    let mut dq = Vec::with_capacity(batch * heads * seq * head_dim);
    let mut dq_rows = rows_by_head::<T>(&mut dq, shape);
    let of_head = kv_seq * head_dim;
    let of_all = batch * kv_heads * of_head;
    let (mut dk, mut dv) = (Vec::with_capacity(of_all), Vec::with_capacity(of_all));
    let mut dk_rows = rows_by_head::<T>(&mut dk, kv_shape);
    let mut dv_rows = rows_by_head::<T>(&mut dv, kv_shape);
    let all_parts = if parts > 1 { parts * 2 * of_all } else { 0 };
    let mut sums: Vec<f32> = Vec::with_capacity(all_parts);
    let mut of_tasks = sums.spare_capacity_mut()[..all_parts].chunks_exact_mut(2 * of_head);
    let mut tasks = Vec::with_capacity(batch * kv_heads * parts);
    let of_heads = dq_rows.chunks_mut(inputs.group);
    for (i, (dq, (dk, dv))) in of_heads
        .zip(dk_rows.iter_mut().zip(&mut dv_rows))
        .enumerate()
    {
        let mut dq: Vec<_> = dq.iter_mut().map(|rows| rows.chunks_mut(part)).collect();
        let mut whole = Some([dk.as_mut_slice(), dv.as_mut_slice()]);
        for first in (0..seq).step_by(part) {
            tasks.push(Task {
                batch: i / kv_heads,
                kv_head: i % kv_heads,
                first,
                dq: dq.iter_mut().filter_map(Iterator::next).collect(),
                sums: match of_tasks.next() {
                    Some(part) => Sums::Part(part),
                    None => Sums::Rows(whole.take().expect("invariant: a single part")),
                },
            });
        }
    }
    tasks
        .into_par_iter()
        .for_each_init(Scratch::default, |scratch, task| {
            inputs.differentiate(task, scratch);
        });
    drop(dq_rows);
    // SAFETY: each of several tasks of a head has written its share.
    unsafe { sums.set_len(all_parts) };
    dk_rows
        .into_par_iter()
        .zip(dv_rows)
        .zip(sums.par_chunks_exact_mut(parts * 2 * of_head))
        .for_each(|((mut dk, mut dv), sums)| {
            let (sum, others) = sums.split_at_mut(2 * of_head);
            for part in others.chunks_exact(2 * of_head) {
                add(sum, part);
            }
            let (dk_sum, dv_sum) = sum.split_at(of_head);
            write_rows(&mut dk, dk_sum);
            write_rows(&mut dv, dv_sum);
        });
    // SAFETY: the tasks have written all rows of dq, and they or the loop above those of dk and dv.
    unsafe {
        dq.set_len(batch * heads * seq * head_dim);
        dk.set_len(of_all);
        dv.set_len(of_all);
    }
    (
        by_head(dq, shape),
        by_head(dk, kv_shape),
        by_head(dv, kv_shape),
    )
}

/// What all tasks read.
struct Inputs<'a, T> {
    /// Queries, keys, values, the output and its gradient.
    operands: [Heads<T>; 5],
    lse: &'a [f32],
    /// Query heads for each key/value head.
    group: usize,
    mix: &'a Mix,
}

impl<T: Entry> Inputs<'_, T> {
    fn differentiate<P: Operand>(&self, task: Task<T>, scratch: &mut Scratch<P>)
    where
        T: Rows<P>,
    {
        let [q, k, v, out, dy] = &self.operands;
        let (visible, scale_by) = (&self.mix.visible, self.mix.scale as f32);
        let (head_dim, one) = (q.head_dim, Threads::Caller);
        let (b, kv_head) = (task.batch, task.kv_head);
        let queries = task.dq.first().map_or(0, |rows| rows.len());
        let end = visible.end(b, task.first + queries - 1);
        let keys = k.rows((b, kv_head), 0..end, &mut scratch.keys);
        let values = v.rows((b, kv_head), 0..end, &mut scratch.values);
        let (dk, dv) = (&mut scratch.dk, &mut scratch.dv);
        for sum in [&mut *dk, dv] {
            sum.clear();
            sum.resize(k.seq * head_dim, 0.0);
        }
        scratch.dq.resize(QUERIES * head_dim, 0.0);
        for row in &mut scratch.rows {
            row.resize(head_dim, 0.0);
        }
        let blocks = task.dq.into_iter().enumerate().flat_map(|(g, rows)| {
            let blocks = rows.chunks_mut(P::QUERIES).enumerate();
            blocks.map(move |(block, rows)| (g, task.first + block * P::QUERIES, rows))
        });
        for (g, first, dq_rows) in blocks {
            let (head, n) = (kv_head * self.group + g, dq_rows.len());
            let row = (b * q.heads + head) * q.seq + first;
            let (mut lse, mut delta) = ([0.0; QUERIES], [0.0; QUERIES]);
            lse[..n].copy_from_slice(&self.lse[row..][..n]);
            let queries = q.rows((b, head), first..first + n, &mut scratch.queries);
            let turned_queries = P::turned(queries, &mut scratch.turned_queries);
            let dy = dy.rows((b, head), first..first + n, &mut scratch.dy);
            let turned_dy = P::turned(dy, &mut scratch.turned_dy);
            for (r, delta) in delta[..n].iter_mut().enumerate() {
                let [out_row, dy_row] = &mut scratch.rows;
                *delta = dot(
                    T::read(out.row(b, head, first + r), out_row),
                    P::read(dy.row(r), dy_row),
                );
            }
            for tile in Tile::of_block(visible, b, first, n) {
                let k = keys.part(tile.keys.clone());
                let v = values.part(tile.keys.clone());
                let (p, ds) = (tile.of(&mut scratch.p), tile.of(&mut scratch.ds));
                gemm(
                    tile.view_mut(p),
                    Then::Replace,
                    scale_by,
                    k,
                    turned_queries,
                    one,
                );
                gemm(tile.view_mut(ds), Then::Replace, 1.0, v, turned_dy, one);
                tile.hide(p, f32::NEG_INFINITY);
                tile.hide(ds, 0.0);
                match &self.mix.dropout {
                    None => differentiate(p, ds, tile.width, &lse, &delta),
                    Some(mask) => {
                        let kept = scratch.kept.tile(mask, row, n, tile.keys.clone());
                        let factor = mask.scale() as f32;
                        drop_weights(ds, tile.width, kept, n, factor);
                        differentiate(p, ds, tile.width, &lse, &delta);
                        drop_weights(p, tile.width, kept, n, factor);
                    }
                }
                let p = tile.view(P::rounded(p, &mut scratch.rounded_p));
                let ds = tile.view(P::rounded(ds, &mut scratch.rounded_ds));
                let then = match tile.is_first() {
                    true => Then::Replace,
                    false => Then::Add,
                };
                let dq = ViewMut::rows(&mut scratch.dq[..n * head_dim], n, head_dim);
                gemm(dq, then, scale_by, ds.transposed(), k, one);
                let seen = tile.keys.len();
                let part = tile.keys.start * head_dim..tile.keys.end * head_dim;
                let dk = ViewMut::rows(&mut dk[part.clone()], seen, head_dim);
                gemm(dk, Then::Add, scale_by, ds, queries, one);
                let dv = ViewMut::rows(&mut dv[part], seen, head_dim);
                gemm(dv, Then::Add, 1.0, p, dy, one);
            }
            write_rows(dq_rows, &scratch.dq);
        }
        match task.sums {
            Sums::Rows([dk_rows, dv_rows]) => {
                write_rows(dk_rows, dk);
                write_rows(dv_rows, dv);
            }
            Sums::Part(sums) => {
                let (dk_sum, dv_sum) = sums.split_at_mut(dk.len());
                dk_sum.write_copy_of_slice(dk);
                dv_sum.write_copy_of_slice(dv);
            }
        }
    }
}
