//! The backward pass: a task of a thread is a key/value head with a part of the queries of its query heads. It sums
//! their gradients to keys and values in a fixed order, and the parts' sums are added in order.

use burn::backend::TensorMetadata;
use rayon::prelude::*;

use super::{Heads, KEYS, Mix, QUERIES, Tile, by_head, rows_by_head};
use crate::flex::Primitive;
use crate::flex::buffer::{dense, values, zeros};
use crate::flex::dropout::fill;
use crate::flex::exp::exp;
use crate::flex::gemm::{Entry, Then, Threads, View, ViewMut, gemm};
use crate::flex::simd::{sum2, vectorised};

/// Queries of a task: enough that clearing and adding up its sums takes little of its time.
const PART: usize = 512;
/// The maximum number of parts, each of which holds gradients to all keys and values.
const PARTS: usize = 4;

vectorised! {
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

    /// The same with dropout's mask of the weights, which are dropped too: the visible ones, `factor` if kept.
    fn differentiate_dropped(
        scores: &mut [f32],
        dp: &mut [f32],
        kept: &[f32],
        factor: f32,
        lse: f32,
        delta: f32,
    ) {
        let (scores, hidden) = scores.split_at_mut(kept.len());
        let (dp, d_hidden) = dp.split_at_mut(kept.len());
        hidden.fill(0.0);
        d_hidden.fill(0.0);
        for ((s, dp), kept) in scores.iter_mut().zip(dp).zip(kept) {
            let (p, m) = (exp(*s - lse), kept * factor);
            *dp = p * (m * *dp - delta);
            *s = p * m;
        }
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
    dq: Vec<&'a mut [&'b mut [T]]>,
    /// The task's share of the gradients to all keys of the head, and to all values.
    dk: &'a mut [f32],
    dv: &'a mut [f32],
}

/// Buffers of a thread that multiplies values of `P`.
struct Scratch<P> {
    /// Scores, then weights.
    p: Vec<f32>,
    /// Gradients to the weights, then to the scores.
    ds: Vec<f32>,
    dq: Vec<f32>,
    /// Both as operands of products.
    rounded_p: Vec<P>,
    rounded_ds: Vec<P>,
    /// Tiles of the queries, keys, values and the gradient of the output.
    tiles: [Vec<P>; 4],
    /// A row of the output and one of its gradient.
    rows: [Vec<f32>; 2],
}

/// Gradients to queries, keys and values, of tensors of `T` by products of `P`.
pub(super) fn backward<T: Tile<P>, P: Entry>(
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
        heads,
        group: heads / kv_heads,
        mix,
    };

    let part = seq.div_ceil(PARTS).next_multiple_of(QUERIES).max(PART);
    let parts = seq.div_ceil(part);
    let mut dq: Vec<T> = zeros(batch * heads * seq * head_dim);
    let of_head = kv_seq * head_dim;
    let mut sums: Vec<f32> = zeros(batch * kv_heads * parts * 2 * of_head);
    let mut dq_rows = rows_by_head(&mut dq, shape);
    let mut tasks = Vec::with_capacity(batch * kv_heads * parts);
    let sums_of_heads = sums.chunks_exact_mut(parts * 2 * of_head);
    for (i, (dq, sums)) in dq_rows
        .chunks_mut(inputs.group)
        .zip(sums_of_heads)
        .enumerate()
    {
        let mut dq: Vec<_> = dq.iter_mut().map(|rows| rows.chunks_mut(part)).collect();
        for (p, sums) in sums.chunks_exact_mut(2 * of_head).enumerate() {
            let (dk, dv) = sums.split_at_mut(of_head);
            tasks.push(Task {
                batch: i / kv_heads,
                kv_head: i % kv_heads,
                first: p * part,
                dq: dq.iter_mut().filter_map(Iterator::next).collect(),
                dk,
                dv,
            });
        }
    }
    let scratch = || Scratch {
        p: vec![0.0; QUERIES * KEYS],
        ds: vec![0.0; QUERIES * KEYS],
        dq: vec![0.0; QUERIES * head_dim],
        rounded_p: Vec::new(),
        rounded_ds: Vec::new(),
        tiles: Default::default(),
        rows: [vec![0.0; head_dim], vec![0.0; head_dim]],
    };
    tasks
        .into_par_iter()
        .for_each_init(scratch, |scratch, task| inputs.differentiate(task, scratch));
    drop(dq_rows);

    let mut dk: Vec<T> = zeros(batch * kv_heads * of_head);
    let mut dv: Vec<T> = zeros(batch * kv_heads * of_head);
    rows_by_head(&mut dk, kv_shape)
        .into_par_iter()
        .zip(rows_by_head(&mut dv, kv_shape))
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
    heads: usize,
    /// Query heads for each key/value head.
    group: usize,
    mix: &'a Mix,
}

impl<T: Entry> Inputs<'_, T> {
    fn differentiate<P: Entry>(&self, task: Task<T>, scratch: &mut Scratch<P>)
    where
        T: Tile<P>,
    {
        let [q_tile, k_tile, v_tile, dy_tile] = &mut scratch.tiles;
        let [q, k, v, out, dy] = &self.operands;
        let (visible, scale_by) = (&self.mix.visible, self.mix.scale as f32);
        let (head_dim, one) = (q.head_dim, Threads::Caller);
        let (b, kv_head) = (task.batch, task.kv_head);
        let blocks = task.dq.into_iter().enumerate().flat_map(|(g, rows)| {
            let blocks = rows.chunks_mut(QUERIES).enumerate();
            blocks.map(move |(block, rows)| (g, task.first + block * QUERIES, rows))
        });
        for (g, first, dq_rows) in blocks {
            let (head, n) = (kv_head * self.group + g, dq_rows.len());
            let mut kept = [0.0; KEYS];
            let mut delta = [0.0; QUERIES];
            for (r, delta) in delta[..n].iter_mut().enumerate() {
                let [out_row, dy_row] = &mut scratch.rows;
                *delta = dot(
                    T::read(out.row(b, head, first + r), out_row),
                    T::read(dy.row(b, head, first + r), dy_row),
                );
            }
            let lse = &self.lse[(b * self.heads + head) * q.seq + first..][..n];
            let queries = q.tile((b, head), first, first + n, q_tile);
            let dy = dy.tile((b, head), first, first + n, dy_tile);
            let end = visible.end(b, first + n - 1);
            for from in (0..end).step_by(KEYS) {
                let to = (from + KEYS).min(end);
                let keys = to - from;
                let k = k.tile((b, kv_head), from, to, k_tile);
                let v = v.tile((b, kv_head), from, to, v_tile).transposed();
                let (p, ds) = (&mut scratch.p[..n * keys], &mut scratch.ds[..n * keys]);
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
                    match &self.mix.dropout {
                        None => differentiate(p, ds, seen, lse[r], delta[r]),
                        Some(mask) => {
                            let row = (b * self.heads + head) * q.seq + first + r;
                            let (kept, factor) = (&mut kept[..seen], mask.scale() as f32);
                            fill(mask, row as u32, from, kept);
                            differentiate_dropped(p, ds, kept, factor, lse[r], delta[r]);
                        }
                    }
                }
                let p = View::rows(P::rounded(p, &mut scratch.rounded_p), n, keys);
                let ds = View::rows(P::rounded(ds, &mut scratch.rounded_ds), n, keys);
                let then = if from > 0 { Then::Add } else { Then::Replace };
                let dq = ViewMut::rows(&mut scratch.dq, n, head_dim);
                gemm(dq, then, scale_by, ds, k, one);
                let part = from * head_dim..to * head_dim;
                let dk = ViewMut::rows(&mut task.dk[part.clone()], keys, head_dim);
                gemm(dk, Then::Add, scale_by, ds.transposed(), queries, one);
                let dv = ViewMut::rows(&mut task.dv[part], keys, head_dim);
                gemm(dv, Then::Add, 1.0, p.transposed(), dy, one);
            }
            write_rows(dq_rows, &scratch.dq);
        }
    }
}

fn write_rows<T: Entry>(rows: &mut [&mut [T]], from: &[f32]) {
    let Some(length) = rows.first().map(|row| row.len()) else {
        return;
    };
    for (row, from) in rows.iter_mut().zip(from.chunks_exact(length)) {
        T::write(from, row);
    }
}
