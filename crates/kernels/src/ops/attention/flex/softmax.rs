//! The softmax of a block of queries over tiles of keys, and its derivative. Tiles are transposed: a row has the scores of
//! all queries of the block with one key.

use std::ops::Range;

use super::super::Visibility;
use super::{KEYS, QUERIES};
use crate::flex::exp::exp;
use crate::flex::gemm::{View, ViewMut};
use crate::flex::simd::{larger, vectorised};

/// Queries that are computed together.
const LANES: usize = 32;

/// The scores of a block of queries with some keys, and what is computed from them.
pub(super) struct Tile<'a> {
    visible: &'a Visibility,
    pub(super) keys: Range<usize>,
    first_query: usize,
    queries: usize,
    /// Columns in memory: those beyond the queries are computed, but not read.
    pub(super) width: usize,
}

impl<'a> Tile<'a> {
    /// Those of a block of queries of row b of the batch with all keys that one of them sees, from the first on.
    pub(super) fn of_block(
        visible: &'a Visibility,
        b: usize,
        first_query: usize,
        queries: usize,
    ) -> impl Iterator<Item = Self> {
        let end = visible.end(b, first_query + queries - 1);
        (0..end).step_by(KEYS).map(move |from| Self {
            visible,
            keys: from..(from + KEYS).min(end),
            first_query,
            queries,
            width: queries.next_multiple_of(LANES),
        })
    }

    /// Whether it is the block's first.
    pub(super) fn is_first(&self) -> bool {
        self.keys.start == 0
    }

    /// The part of a buffer that it takes.
    pub(super) fn of<'b>(&self, buffer: &'b mut Vec<f32>) -> &'b mut [f32] {
        buffer.resize(QUERIES * KEYS, 0.0);
        &mut buffer[..self.keys.len() * self.width]
    }

    /// `[keys, queries]`.
    pub(super) fn view<'b, T>(&self, x: &'b [T]) -> View<'b, T> {
        View::new(x, [self.keys.len(), self.queries], [self.width, 1])
    }

    /// The same to write.
    pub(super) fn view_mut<'b>(&self, x: &'b mut [f32]) -> ViewMut<'b> {
        ViewMut::new(x, [self.keys.len(), self.queries], [self.width, 1])
    }

    /// Writes `value` where a query does not see a key.
    pub(super) fn hide(&self, x: &mut [f32], value: f32) {
        for (key, row) in self.keys.clone().zip(x.chunks_exact_mut(self.width)) {
            let hidden = self.visible.hides(key, self.first_query).min(self.queries);
            row[..hidden].fill(value);
        }
    }
}

/// What is known of each query's softmax after some tiles.
pub(super) struct Softmax {
    /// The largest score.
    largest: [f32; QUERIES],
    /// The sum of `exp(score - largest)`.
    sum: [f32; QUERIES],
    /// The factor by which the last tile changed earlier weights.
    fade: [f32; QUERIES],
}

impl Softmax {
    pub(super) fn new() -> Self {
        Self {
            largest: [f32::NEG_INFINITY; QUERIES],
            sum: [0.0; QUERIES],
            fade: [1.0; QUERIES],
        }
    }

    /// Turns scores into weights relative to the largest score so far.
    pub(super) fn weigh(&mut self, scores: &mut [f32], width: usize) {
        weigh(
            scores,
            width,
            &mut self.largest,
            &mut self.sum,
            &mut self.fade,
        );
    }

    /// Scales the rows of what was weighted before the last tile.
    pub(super) fn fade(&self, mixed: &mut [f32], head_dim: usize) {
        scale_rows(mixed, head_dim, &self.fade);
    }

    /// Divides the rows of what was weighted by the sums of their weights, and scales them.
    pub(super) fn normalise(&self, mixed: &mut [f32], head_dim: usize, scale: f32) {
        scale_rows(mixed, head_dim, &self.sum.map(|sum| scale / sum));
    }

    /// `log sum exp` of a query's scores.
    pub(super) fn lse(&self, query: usize) -> f32 {
        self.largest[query] + self.sum[query].ln()
    }
}

/// [`LANES`] entries of each row.
#[inline(always)]
fn columns(tile: &[f32], width: usize, first: usize) -> impl Iterator<Item = &[f32; LANES]> {
    let rows = tile.chunks_exact(width);
    rows.map(move |row| row[first..].first_chunk().expect("invariant: whole lanes"))
}

#[inline(always)]
fn columns_mut(
    tile: &mut [f32],
    width: usize,
    first: usize,
) -> impl Iterator<Item = &mut [f32; LANES]> {
    let rows = tile.chunks_exact_mut(width);
    rows.map(move |row| {
        row[first..]
            .first_chunk_mut()
            .expect("invariant: whole lanes")
    })
}

vectorised! {
    fn weigh(
        scores: &mut [f32],
        width: usize,
        largest: &mut [f32; QUERIES],
        sum: &mut [f32; QUERIES],
        fade: &mut [f32; QUERIES],
    ) {
        let of_queries = largest.as_chunks_mut::<LANES>().0.iter_mut()
            .zip(sum.as_chunks_mut::<LANES>().0)
            .zip(fade.as_chunks_mut::<LANES>().0);
        for (first, ((largest, sum), fade)) in (0..width).step_by(LANES).zip(of_queries) {
            let mut now = *largest;
            for scores in columns(scores, width, first) {
                for l in 0..LANES {
                    now[l] = larger(scores[l], now[l]);
                }
            }
            for l in 0..LANES {
                fade[l] = exp(largest[l] - now[l]);
                sum[l] *= fade[l];
            }
            let mut added = [0.0; LANES];
            for scores in columns_mut(scores, width, first) {
                for l in 0..LANES {
                    scores[l] = exp(scores[l] - now[l]);
                    added[l] += scores[l];
                }
            }
            for l in 0..LANES {
                sum[l] += added[l];
            }
            *largest = now;
        }
    }

    /// Turns scores into weights, and the weights' gradients into the scores'.
    fn differentiate(
        scores: &mut [f32],
        dp: &mut [f32],
        width: usize,
        lse: &[f32; QUERIES],
        delta: &[f32; QUERIES],
    ) {
        let of_queries = lse.as_chunks::<LANES>().0.iter().zip(delta.as_chunks::<LANES>().0);
        for (first, (lse, delta)) in (0..width).step_by(LANES).zip(of_queries) {
            let rows = columns_mut(scores, width, first).zip(columns_mut(dp, width, first));
            for (scores, dp) in rows {
                for l in 0..LANES {
                    let p = exp(scores[l] - lse[l]);
                    dp[l] = p * (dp[l] - delta[l]);
                    scores[l] = p;
                }
            }
        }
    }

    /// The product with a mask of `queries` columns, and with a factor.
    fn drop_weights(tile: &mut [f32], width: usize, kept: &[f32], queries: usize, factor: f32) {
        for (row, kept) in tile.chunks_exact_mut(width).zip(kept.chunks_exact(queries)) {
            for (x, kept) in row.iter_mut().zip(kept) {
                *x *= kept * factor;
            }
        }
    }

    fn scale_rows(rows: &mut [f32], row: usize, by: &[f32; QUERIES]) {
        for (row, factor) in rows.chunks_exact_mut(row).zip(by) {
            for x in row {
                *x *= factor;
            }
        }
    }
}
