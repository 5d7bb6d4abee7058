//! Attention to a cache, in tasks of some queries of a key/value head and some of its keys.
//!
//! The query heads that share a key/value head are rows of the same task, so that keys and values
//! are read once. With many queries a task covers all keys they see, by tiles as in attention
//! without a cache. With few queries, as when one token is decoded, the keys are split instead (Dao
//! et al., *Flash-Decoding*, 2023): a task computes the largest score, the sum and the weighted
//! values of its segment, and the segments are merged in order.

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Shape;
use rayon::prelude::*;

use super::{CacheRow, CachedAttention};
use crate::flex::Primitive;
use crate::flex::buffer::{dense, tensor, zeros};
use crate::flex::exp::exp;
use crate::flex::few_rows::{add_product, dots};
use crate::flex::gemm::{Then, Threads, View, ViewMut, gemm};
use crate::flex::halves::{Floats, at_most_f32, rounded, widened};
use crate::flex::simd::{larger, map_sum, reduce, vectorised};

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
}

impl CachedAttention for Flex {
    fn cached_attention(
        q: Primitive,
        keys: Primitive,
        values: Primitive,
        rows: &[CacheRow],
        scale: f64,
    ) -> Primitive {
        if at_most_f32([&q, &keys, &values]) {
            let dtype = q.dtype();
            rounded(forward(widened(q), keys, values, rows, scale as f32), dtype)
        } else {
            super::forward::<Self>(q, keys, values, rows, scale)
        }
    }
}

/// Query rows per block.
const QUERIES: usize = 64;
/// Keys per tile.
const KEYS: usize = 128;
/// Keys per segment if few queries are split over them.
const SEGMENT: usize = 4 * KEYS;
/// The maximum number of query rows that are multiplied without tiles.
const FEW: usize = 8;
/// Number of multiplications below which waking another thread costs more than it saves.
const SMALL: usize = 1 << 16;

/// Queries, `[batch, n_heads, seq, head_dim]` with any order of the first three axes.
struct Queries<'a> {
    values: &'a [f32],
    strides: [usize; 3],
}

impl Queries<'_> {
    fn row(&self, batch: usize, head: usize, column: usize, head_dim: usize) -> &[f32] {
        let [b, h, s] = self.strides;
        &self.values[batch * b + head * h + column * s..][..head_dim]
    }
}

/// Some new tokens of a row of the batch, the query heads of one key/value head, and some of its
/// keys.
#[derive(Clone, Copy)]
struct Task {
    batch: usize,
    kv_head: usize,
    /// New tokens `first..last` of the row.
    first: usize,
    last: usize,
    /// Slots of the cache.
    from: usize,
    to: usize,
}

impl Task {
    /// What tasks of the same queries have in common.
    fn queries(&self) -> [usize; 3] {
        [self.batch, self.kv_head, self.first]
    }
}

/// The result of a task, a row for each head of the group and each token.
struct Partial<'a> {
    task: Task,
    max: &'a mut [f32],
    sum: &'a mut [f32],
    /// `[rows, head_dim]`
    mixed: &'a mut [f32],
}

/// Memory for the results of all tasks. It is one piece, because tasks that allocate wait for each other.
struct Partials {
    max: Vec<f32>,
    sum: Vec<f32>,
    mixed: Vec<f32>,
    head_dim: usize,
}

impl Partials {
    fn of(rows: usize, head_dim: usize) -> Self {
        Self {
            max: vec![f32::NEG_INFINITY; rows],
            sum: vec![0.0; rows],
            mixed: zeros(rows * head_dim),
            head_dim,
        }
    }

    /// The parts for tasks of these numbers of rows.
    fn split(&mut self, tasks: impl IntoIterator<Item = (Task, usize)>) -> Vec<Partial<'_>> {
        let mut rest = (&mut *self.max, &mut *self.sum, &mut *self.mixed);
        let parts = tasks.into_iter().map(|(task, rows)| {
            let (max, sum, mixed) = std::mem::take(&mut rest);
            let (max, rest_of_max) = max.split_at_mut(rows);
            let (sum, rest_of_sum) = sum.split_at_mut(rows);
            let (mixed, rest_of_mixed) = mixed.split_at_mut(rows * self.head_dim);
            rest = (rest_of_max, rest_of_sum, rest_of_mixed);
            Partial {
                task,
                max,
                sum,
                mixed,
            }
        });
        parts.collect()
    }
}

/// For f32 queries; the cache is f32 or half precision.
fn forward(
    q: Primitive,
    keys: Primitive,
    values: Primitive,
    rows: &[CacheRow],
    scale_by: f32,
) -> Primitive {
    let [batch, n_heads, seq, head_dim] = q.shape().dims();
    let [_, n_kv_heads, capacity, _] = keys.shape().dims();
    let group = n_heads / n_kv_heads;
    let as_it_lies = q.layout().strides()[3] == 1 && q.layout().strides().iter().all(|s| *s >= 0);
    let q = if as_it_lies { q } else { dense(q) };
    let stride = |axis: usize| q.layout().strides()[axis].unsigned_abs();
    let queries = Queries {
        values: &q.storage::<f32>()[q.layout().start_offset()..],
        strides: [stride(0), stride(1), stride(2)],
    };
    let (keys, values) = (dense(keys), dense(values));
    let (keys, values) = (floats(&keys), floats(&values));

    let tasks = tasks(rows, group, n_kv_heads);
    let run = |scratch: &mut Scratch, partial: &mut Partial| {
        let task = partial.task;
        let row = &rows[task.batch];
        let base = (task.batch * n_kv_heads + task.kv_head) * capacity * head_dim;
        let heads = task.kv_head * group..(task.kv_head + 1) * group;
        let new = task.first..task.last;
        scratch.q.clear();
        for head in heads {
            for token in new.clone() {
                let q = queries.row(task.batch, head, row.from + token, head_dim);
                scratch.q.extend(q.iter().map(|q| q * scale_by));
            }
        }
        attend(partial, row, (&keys, &values), (base, head_dim), scratch);
    };
    let rows_of = |task: &Task| group * (task.last - task.first);
    let work = |task: &Task| rows_of(task) * (task.to - task.from) * head_dim;
    let total_work: usize = tasks.iter().map(work).sum();
    let mut memory = Partials::of(tasks.iter().map(rows_of).sum(), head_dim);
    // Tasks of a thread with less work than is worth one; all of them if together they have no more.
    let worth_a_thread = (tasks.len() * SMALL).div_ceil(total_work.max(1));
    let mut partials = memory.split(tasks.into_iter().map(|task| (task, rows_of(&task))));
    if worth_a_thread >= partials.len() {
        let mut scratch = Scratch::default();
        for partial in &mut partials {
            run(&mut scratch, partial);
        }
    } else {
        let partials = partials.par_iter_mut().with_min_len(worth_a_thread);
        partials.for_each_init(Scratch::default, run);
    }

    let mut out = vec![0.0; batch * seq * n_heads * head_dim];
    for segments in partials.chunk_by(|a, b| a.task.queries() == b.task.queries()) {
        let task = segments[0].task;
        let tokens = task.last - task.first;
        for r in 0..group * tokens {
            let column = rows[task.batch].from + task.first + r % tokens;
            let head = task.kv_head * group + r / tokens;
            let at = ((task.batch * seq + column) * n_heads + head) * head_dim;
            put_together(&mut out[at..at + head_dim], segments, r);
        }
    }
    let shape = Shape::from(vec![batch, seq, n_heads, head_dim]);
    tensor(out, shape).transpose(1, 2)
}

fn floats(cache: &Primitive) -> Floats<'_> {
    Floats::of(cache).expect("invariant: dense, f32 or half precision")
}

/// The tasks of a pass. Tasks of the same queries are consecutive.
fn tasks(rows: &[CacheRow], group: usize, n_kv_heads: usize) -> Vec<Task> {
    let mut tasks = Vec::new();
    for (batch, row) in rows.iter().enumerate() {
        let few = group * row.count <= FEW;
        let block = if few {
            row.count
        } else {
            (QUERIES / group).max(1)
        };
        for kv_head in 0..n_kv_heads {
            for first in (0..row.count).step_by(block.max(1)) {
                let last = (first + block).min(row.count);
                let seen = row.cached + last;
                let segment = if few { SEGMENT } else { seen };
                tasks.extend((0..seen).step_by(segment).map(|from| Task {
                    batch,
                    kv_head,
                    first,
                    last,
                    from,
                    to: (from + segment).min(seen),
                }));
            }
        }
    }
    tasks
}

/// Buffers of a task.
#[derive(Default)]
struct Scratch {
    /// Scaled queries, `[rows, head_dim]`.
    q: Vec<f32>,
    scores: Vec<f32>,
    /// A tile of a cache in half precision, widened.
    keys: Vec<f32>,
    /// The same.
    values: Vec<f32>,
}

fn attend(
    partial: &mut Partial,
    row: &CacheRow,
    (keys, values): (&Floats, &Floats),
    (base, head_dim): (usize, usize),
    scratch: &mut Scratch,
) {
    let Partial {
        task,
        max,
        sum,
        mixed,
    } = partial;
    let Scratch {
        q,
        scores,
        keys: k_tile,
        values: v_tile,
    } = scratch;
    let n = q.len() / head_dim;
    let tokens = task.last - task.first;
    for from in (task.from..task.to).step_by(KEYS) {
        let width = (task.to - from).min(KEYS);
        scores.resize(n * width, 0.0);
        let at = base + from * head_dim;
        let k = tile(keys.part(at, width * head_dim), n, k_tile);
        let v = tile(values.part(at, width * head_dim), n, v_tile);
        if n <= FEW {
            for (scores, q) in scores.chunks_exact_mut(width).zip(q.chunks_exact(head_dim)) {
                dots(scores, q, k);
            }
        } else {
            let (q, k) = (
                View::rows(q, n, head_dim),
                View::rows(k.as_f32(), width, head_dim),
            );
            let to = ViewMut::rows(scores, n, width);
            gemm(to, Then::Replace, 1.0, q, k.transposed(), Threads::Caller);
        }
        for (r, scores) in scores.chunks_exact_mut(width).enumerate() {
            let token = task.first + r % tokens;
            let visible = (row.cached + token + 1).saturating_sub(from).min(width);
            let fade = weigh(scores, visible, &mut max[r], &mut sum[r]);
            if from > task.from {
                scale(&mut mixed[r * head_dim..(r + 1) * head_dim], fade);
            }
        }
        if n <= FEW {
            let rows = mixed.chunks_exact_mut(head_dim);
            for (mixed, weights) in rows.zip(scores.chunks_exact(width)) {
                add_product(mixed, weights, v);
            }
        } else {
            let (weights, v) = (
                View::rows(scores, n, width),
                View::rows(v.as_f32(), width, head_dim),
            );
            let to = ViewMut::rows(mixed, n, head_dim);
            gemm(to, Then::Add, 1.0, weights, v, Threads::Caller);
        }
    }
}

/// Part of a cache for n queries. A single query reads half precision as it is; for more it is widened once.
fn tile<'a>(cache: Floats<'a>, n: usize, buffer: &'a mut Vec<f32>) -> Floats<'a> {
    match n {
        1 => cache,
        _ => Floats::F32(cache.read_all(buffer)),
    }
}

/// `out = sum_s e^(max_s - max) mixed_s / sum_s e^(max_s - max) sum_s` over the segments.
fn put_together(out: &mut [f32], segments: &[Partial], r: usize) {
    let head_dim = out.len();
    let max = segments
        .iter()
        .fold(f32::NEG_INFINITY, |max, s| max.max(s.max[r]));
    // If all scores are -inf or NaN, there is no largest score to subtract.
    let weight = |s: &Partial| {
        if s.max[r] == max {
            1.0
        } else {
            exp(s.max[r] - max)
        }
    };
    let total: f32 = segments.iter().map(|s| weight(s) * s.sum[r]).sum();
    for segment in segments {
        let share = weight(segment) / total;
        let mixed = &segment.mixed[r * head_dim..(r + 1) * head_dim];
        for (y, m) in out.iter_mut().zip(mixed) {
            *y += share * m;
        }
    }
}
