//! A few rows times a matrix, as one pass over the matrix where it lies.
//!
//! The matrix is cut into blocks of whole rows, each read from its first byte to its last by one
//! thread. Of `W`, `[d_in, d_out]`, a block gives every row of the result a part of the sum, and
//! the parts are added in the blocks' order; of a transposed `W`, as a tied output projection is,
//! a block gives some entries of the result, each a dot product.

use burn::backend::TensorMetadata;
use rayon::prelude::*;

use super::Primitive;
use super::buffer::{dense, tensor, values};
use super::halves::Floats;
use super::simd::{sum2, vectorised};
use crate::linear::with_width;

/// Beyond this many rows a product is limited by arithmetic, and tiles pay.
const FEW_ROWS: usize = 8;
/// Weights in a block: 256 KiB, some ten microseconds of one core's memory bandwidth.
const BLOCK: usize = 1 << 16;
/// Rows of the matrix that serve all rows of x before the next are read.
const AT_ONCE: usize = 8;

vectorised! {
    /// `sum += x W`, for the rows of `w` that belong to the entries of `x`: several rows in one pass
    /// over the sum, for a matrix that is in cache.
    fn add_product(sum: &mut [f32], x: &[f32], w: &[f32]) {
        let n = sum.len();
        let (groups, rest) = x.as_chunks::<AT_ONCE>();
        for (x, w) in groups.iter().zip(w.chunks_exact(AT_ONCE * n)) {
            let rows: [&[f32]; AT_ONCE] = std::array::from_fn(|r| &w[r * n..][..n]);
            for j in 0..n {
                let mut s = sum[j];
                for r in 0..AT_ONCE {
                    s += x[r] * rows[r][j];
                }
                sum[j] = s;
            }
        }
        let tail = &w[groups.len() * AT_ONCE * n..];
        for (x, w) in rest.iter().zip(tail.chunks_exact(n)) {
            for (s, w) in sum.iter_mut().zip(w) {
                *s += x * w;
            }
        }
    }

    /// The same sums in the same order, from a matrix that comes from memory: one stream from its
    /// first byte to its last, which processors fetch ahead better than several.
    fn add_streamed_product(sum: &mut [f32], x: &[f32], w: &[f32]) {
        for (x, w) in x.iter().zip(w.chunks_exact(sum.len())) {
            for (s, w) in sum.iter_mut().zip(w) {
                *s += x * w;
            }
        }
    }

    fn add(sum: &mut [f32], part: &[f32]) {
        for (s, p) in sum.iter_mut().zip(part) {
            *s += p;
        }
    }

    /// `out[i] = x . w_i`, `w_i` being the rows of `w`.
    fn dots(out: &mut [f32], x: &[f32], w: &[f32]) {
        for (y, w) in out.iter_mut().zip(w.chunks_exact(x.len())) {
            *y = sum2(x, w, |x, w| x * w);
        }
    }
}

/// Whether x, `[.., d_in]`, has few rows, and any.
pub(super) fn are(x: &Primitive) -> bool {
    let shape = x.shape();
    let d_in = shape[shape.num_dims() - 1];
    (1..=FEW_ROWS * d_in).contains(&shape.num_elements())
}

fn floats(weight: &Primitive) -> Floats<'_> {
    Floats::of(weight).expect("invariant: dense, and of a type that is checked before")
}

/// `x W` for x `[.., d_in]` in f32 and W `[d_in, d_out]` in f32 or halves.
pub(super) fn product(x: Primitive, weight: Primitive) -> Primitive {
    let [d_in, d_out] = weight.shape().dims();
    let shape = with_width(x.shape(), d_out);
    let x = dense(x);
    let turned = weight.transpose(0, 1);
    let y = if turned.is_contiguous() && !weight.is_contiguous() {
        by_dots(values(&x), floats(&turned), d_in, d_out)
    } else {
        by_sums(values(&x), floats(&dense(weight)), d_in, d_out)
    };
    tensor(y, shape)
}

/// `W` by its rows, `[d_in, d_out]`.
fn by_sums(x: &[f32], w: Floats<'_>, d_in: usize, d_out: usize) -> Vec<f32> {
    let rows = x.len() / d_in;
    // Whole groups, so that the blocks do not end in slower single rows.
    let block = (BLOCK / d_out.max(1))
        .next_multiple_of(AT_ONCE)
        .max(AT_ONCE);
    // The matrix comes from memory once: a group of its rows serves all rows of x.
    let at_once = match rows {
        1 => w.rows_at_once(d_out).min(block),
        _ => AT_ONCE,
    };
    let part = |(i, sums): (usize, &mut [f32])| {
        let mut scratch = Vec::new();
        let (from, to) = (i * block, ((i + 1) * block).min(d_in));
        for at in (from..to).step_by(at_once) {
            let group = at..(at + at_once).min(to);
            let w = w.part(group.start * d_out..group.end * d_out, &mut scratch);
            if rows == 1 {
                add_streamed_product(sums, &x[group], w);
                continue;
            }
            for (sum, x) in sums.chunks_exact_mut(d_out).zip(x.chunks_exact(d_in)) {
                add_product(sum, &x[group.clone()], w);
            }
        }
    };
    let mut parts = vec![0.0; d_in.div_ceil(block) * rows * d_out];
    if parts.len() == rows * d_out {
        part((0, &mut parts));
        return parts;
    }
    parts
        .par_chunks_mut(rows * d_out)
        .enumerate()
        .for_each(part);
    let (sum, others) = parts.split_at_mut(rows * d_out);
    for part in others.chunks_exact(rows * d_out) {
        add(sum, part);
    }
    parts.truncate(rows * d_out);
    parts
}

/// `W` by its columns, `w` being `[d_out, d_in]`.
fn by_dots(x: &[f32], w: Floats<'_>, d_in: usize, d_out: usize) -> Vec<f32> {
    let rows = x.len() / d_in;
    let block = (BLOCK / d_in.max(1)).max(1);
    // By column, then turned: a thread writes what is its own.
    let mut turned = vec![0.0; rows * d_out];
    let at_once = w.rows_at_once(d_in).min(block);
    let part = |(i, out): (usize, &mut [f32])| {
        let mut scratch = Vec::new();
        for (k, out) in out.chunks_mut(at_once * rows).enumerate() {
            let from = (i * block + k * at_once) * d_in;
            let w = w.part(from..from + out.len() / rows * d_in, &mut scratch);
            if rows == 1 {
                dots(out, x, w);
                continue;
            }
            for (out, w) in out.chunks_exact_mut(rows).zip(w.chunks_exact(d_in)) {
                dots(out, w, x);
            }
        }
    };
    if d_out <= block {
        part((0, &mut turned));
    } else {
        turned
            .par_chunks_mut(block * rows)
            .enumerate()
            .for_each(part);
    }
    if rows == 1 {
        return turned;
    }
    let mut y = vec![0.0; rows * d_out];
    for (j, column) in turned.chunks_exact(rows).enumerate() {
        for (r, value) in column.iter().enumerate() {
            y[r * d_out + j] = *value;
        }
    }
    y
}
