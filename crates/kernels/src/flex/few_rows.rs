//! A few rows times a matrix, in one pass over the matrix in memory.
//!
//! The matrix is split into blocks of whole rows, each read sequentially by one thread. For `W`, `[d_in,
//! d_out]`, a block contributes a partial sum to every row of the result, and the partial sums are added in
//! the blocks' order. For a transposed `W`, such as a tied output projection, a block gives some entries of
//! the result, each a dot product.

mod f16;

use burn::backend::TensorMetadata;
use burn::tensor::bf16;
use rayon::prelude::*;

use super::Primitive;
use super::buffer::{dense, tensor, values};
use super::halves::{Floats, wide_bf16};
use super::simd::{prefetch, sum2, vectorised};
use crate::ops::linear::with_width;

/// Beyond this many rows a product is limited by arithmetic, and tiling is faster.
const FEW_ROWS: usize = 8;
/// Weights per block: 256 KiB, about ten microseconds of one core's memory bandwidth.
const BLOCK: usize = 1 << 16;
/// Rows of the matrix that are applied to all rows of x before the next ones are read.
const AT_ONCE: usize = 8;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Prefetch distance in bytes. The hardware prefetcher alone keeps too few lines in flight on processors with a
/// high memory latency.
const AHEAD: usize = 2048;

/// An entry type of the matrix, and the products of rows with a matrix of this type.
trait Weight: Copy + Sync {
    /// `sum += x W`, for the rows of `w` that belong to the entries of `x`: several rows per pass over the
    /// sum, for a matrix that is in cache.
    fn add_product(sum: &mut [f32], x: &[f32], w: &[Self]);

    /// The same sums in the same order, for a matrix that is read from memory: one sequential stream, which
    /// hardware prefetchers handle better than several.
    fn add_streamed_product(sum: &mut [f32], x: &[f32], w: &[Self]);

    /// `out[i] = x . w_i`, where `w_i` are the rows of `w`.
    fn dots(out: &mut [f32], x: &[f32], w: &[Self]);

    /// `out[i] = x_i . w`, where `x_i` are the rows of `x`.
    fn dots_with(out: &mut [f32], x: &[f32], w: &[Self]);
}

/// The products of one type, whose entries `$wide` converts to f32 in registers.
macro_rules! weight {
    ($type:ty, $wide:path) => {
        impl Weight for $type {
            fn add_product(sum: &mut [f32], x: &[f32], w: &[Self]) {
                vectorised! {
                    fn product(sum: &mut [f32], x: &[f32], w: &[$type]) {
                        let n = sum.len();
                        let (groups, rest) = x.as_chunks::<AT_ONCE>();
                        for (x, w) in groups.iter().zip(w.chunks_exact(AT_ONCE * n)) {
                            for line in w.chunks(LINE / size_of::<$type>()) {
                                prefetch(line.as_ptr().wrapping_byte_add(AHEAD));
                            }
                            let rows: [&[$type]; AT_ONCE] =
                                std::array::from_fn(|r| &w[r * n..][..n]);
                            for j in 0..n {
                                let mut s = sum[j];
                                for r in 0..AT_ONCE {
                                    s += x[r] * $wide(rows[r][j]);
                                }
                                sum[j] = s;
                            }
                        }
                        let tail = &w[groups.len() * AT_ONCE * n..];
                        for (x, w) in rest.iter().zip(tail.chunks_exact(n)) {
                            for (s, w) in sum.iter_mut().zip(w) {
                                *s += x * $wide(*w);
                            }
                        }
                    }
                }
                product(sum, x, w);
            }

            fn add_streamed_product(sum: &mut [f32], x: &[f32], w: &[Self]) {
                vectorised! {
                    fn product(sum: &mut [f32], x: &[f32], w: &[$type]) {
                        const IN_A_LINE: usize = LINE / size_of::<$type>();
                        for (x, w) in x.iter().zip(w.chunks_exact(sum.len())) {
                            let (lines, w_tail) = w.as_chunks::<IN_A_LINE>();
                            let (sums, tail) = sum.as_chunks_mut::<IN_A_LINE>();
                            for (s, w) in sums.iter_mut().zip(lines) {
                                prefetch(w.as_ptr().wrapping_byte_add(AHEAD));
                                for l in 0..IN_A_LINE {
                                    s[l] += x * $wide(w[l]);
                                }
                            }
                            for (s, w) in tail.iter_mut().zip(w_tail) {
                                *s += x * $wide(*w);
                            }
                        }
                    }
                }
                product(sum, x, w);
            }

            fn dots(out: &mut [f32], x: &[f32], w: &[Self]) {
                vectorised! {
                    fn product(out: &mut [f32], x: &[f32], w: &[$type]) {
                        for (y, w) in out.iter_mut().zip(w.chunks_exact(x.len())) {
                            for line in w.chunks(LINE / size_of::<$type>()) {
                                prefetch(line.as_ptr().wrapping_byte_add(AHEAD));
                            }
                            *y = sum2(x, w, |x, w| x * $wide(w));
                        }
                    }
                }
                product(out, x, w);
            }

            fn dots_with(out: &mut [f32], x: &[f32], w: &[Self]) {
                vectorised! {
                    fn product(out: &mut [f32], x: &[f32], w: &[$type]) {
                        for (y, x) in out.iter_mut().zip(x.chunks_exact(w.len())) {
                            *y = sum2(x, w, |x, w| x * $wide(w));
                        }
                    }
                }
                product(out, x, w);
            }
        }
    };
}

weight!(f32, identity);
weight!(bf16, wide_bf16);

#[inline(always)]
fn identity(x: f32) -> f32 {
    x
}

/// `sum += x W` for W `[d_in, d_out]`, of as many columns as `sum` has.
pub(crate) fn add_product(sum: &mut [f32], x: &[f32], w: Floats) {
    match w {
        Floats::F32(w) => Weight::add_product(sum, x, w),
        Floats::F16(w) => Weight::add_product(sum, x, w),
        Floats::Bf16(w) => Weight::add_product(sum, x, w),
    }
}

/// `out = W x` for W `[d_out, d_in]`.
pub(crate) fn dots(out: &mut [f32], x: &[f32], w: Floats) {
    match w {
        Floats::F32(w) => Weight::dots(out, x, w),
        Floats::F16(w) => Weight::dots(out, x, w),
        Floats::Bf16(w) => Weight::dots(out, x, w),
    }
}

vectorised! {
    fn add(sum: &mut [f32], part: &[f32]) {
        for (s, p) in sum.iter_mut().zip(part) {
            *s += p;
        }
    }
}

/// Whether x, `[.., d_in]`, has few rows, but at least one.
pub(crate) fn are(x: &Primitive) -> bool {
    let shape = x.shape();
    let d_in = shape[shape.num_dims() - 1];
    (1..=FEW_ROWS * d_in).contains(&shape.num_elements())
}

/// `x W` for x `[.., d_in]` in f32 and W `[d_in, d_out]` in f32 or half precision.
pub(crate) fn product(x: Primitive, weight: Primitive) -> Primitive {
    let [_, d_out] = weight.shape().dims();
    let shape = with_width(x.shape(), d_out);
    let x = dense(x);
    let turned = weight.transpose(0, 1);
    let by_columns = turned.is_contiguous() && !weight.is_contiguous();
    let weight = if by_columns { turned } else { dense(weight) };
    let y = match Floats::of(&weight).expect("invariant: dense, type checked before") {
        Floats::F32(w) => values_of(values(&x), w, d_out, by_columns),
        Floats::Bf16(w) => values_of(values(&x), w, d_out, by_columns),
        Floats::F16(w) => values_of(values(&x), w, d_out, by_columns),
    };
    tensor(y, shape)
}

fn values_of<W: Weight>(x: &[f32], w: &[W], d_out: usize, by_columns: bool) -> Vec<f32> {
    let d_in = w.len() / d_out.max(1);
    match by_columns {
        true => by_dots(x, w, d_in, d_out),
        false => by_sums(x, w, d_in, d_out),
    }
}

/// `W` by its rows, `[d_in, d_out]`.
fn by_sums<W: Weight>(x: &[f32], w: &[W], d_in: usize, d_out: usize) -> Vec<f32> {
    let rows = x.len() / d_in;
    // Whole groups, so that blocks do not end with slower single rows.
    let block = (BLOCK / d_out.max(1))
        .next_multiple_of(AT_ONCE)
        .max(AT_ONCE);
    let part = |(i, sums): (usize, &mut [f32])| {
        let (from, to) = (i * block, ((i + 1) * block).min(d_in));
        let w = &w[from * d_out..to * d_out];
        if rows == 1 {
            return W::add_streamed_product(sums, &x[from..to], w);
        }
        // The matrix is read from memory once: a group of its rows is applied to all rows of x.
        for at in (0..to - from).step_by(AT_ONCE) {
            let group = at..(at + AT_ONCE).min(to - from);
            let w = &w[group.start * d_out..group.end * d_out];
            for (sum, x) in sums.chunks_exact_mut(d_out).zip(x.chunks_exact(d_in)) {
                W::add_product(sum, &x[from..to][group.clone()], w);
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

/// `W` by its columns, where `w` is `[d_out, d_in]`.
fn by_dots<W: Weight>(x: &[f32], w: &[W], d_in: usize, d_out: usize) -> Vec<f32> {
    let rows = x.len() / d_in;
    let block = (BLOCK / d_in.max(1)).max(1);
    // Computed by column and then transposed, so that each thread writes a separate part.
    let mut turned = vec![0.0; rows * d_out];
    let part = |(i, out): (usize, &mut [f32])| {
        let w = &w[i * block * d_in..];
        if rows == 1 {
            return W::dots(out, x, w);
        }
        for (out, w) in out.chunks_exact_mut(rows).zip(w.chunks_exact(d_in)) {
            W::dots_with(out, x, w);
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
