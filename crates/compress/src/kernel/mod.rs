//! Products with packed weights, `y = x W^T`.
//!
//! Few rows are multiplied in one pass over the packed bytes. A block is sixteen words of 32 bits, one cache line: lane l has word l, which holds the codes of V = 32 / bits
//! neighbouring inputs. All implementations compute, for each row of x and each output,
//!
//! ```text
//! part_l = sum_k (q_lk - z_l) x_lk        k = 0 .. V, fused multiply-adds in this order
//! sum_l  = part_l s_l + sum_l             block by block, fused
//! y      = sum of the lanes, by halves
//! ```
//!
//! so results do not depend on the processor, the number of threads, or the other rows. `q - z` is exact.
//!
//! With [`Activations::Int8`] x is rounded to 8 bits per row and group before ([`rounded_inputs`]), `x = t u` with
//! integers u. Then part_l is an exact integer, and is multiplied by `s_l t_l`.
//!
//! | | f32 activations | 8-bit activations |
//! | --- | --- | --- |
//! | AVX-512 with VNNI | `avx512`, codes looked up in a register | `vnni`, four products per lane and instruction |
//! | AVX2 with FMA | `plain`, compiled for it | `avx2`, two products per 16 bits and instruction |
//! | others | `plain` | `plain` |
//!
//! Many rows of integers, as those of a prompt, are multiplied by tiles ([`product_of_many`]).

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod dequantise;
mod inputs;
mod integers;
mod many;
mod piece;
mod plain;
mod simd;
#[cfg(target_arch = "x86_64")]
mod vnni;

use rayon::prelude::*;

pub use dequantise::{Dequantised, dequantise};
use inputs::WideInputs;
use integers::Int8Inputs;
pub use integers::rounded_inputs;
pub use many::{many_rows_pay, product_of_many};
use piece::Piece;

use crate::CompressError;
use crate::error::check_length;
use crate::packed::PackedView;
use crate::scheme::Activations;

/// Lanes of a block.
const LANES: usize = 16;
/// Bytes of a block.
const LINE: usize = 64;
/// Prefetch distance in bytes. The hardware prefetcher alone keeps too few lines in flight on processors with a high
/// memory latency.
const AHEAD: usize = 2048;
/// Bytes of codes that a thread takes at once.
const PIECE: usize = 32 << 10;
/// Bytes of codes below which handing work to other threads takes longer than it saves.
const ALONE: usize = 128 << 10;

/// `y = x W^T` for x `[rows, d_in]` and W `[d_out, d_in]`; y is `[rows, d_out]`.
///
/// Meant for few rows, up to about 16: every row is multiplied from packed codes. For more there are
/// [`product_of_many`], and [`dequantise`] with an ordinary product.
///
/// # Errors
///
/// For lengths that do not match.
pub fn product(
    y: &mut [f32],
    x: &[f32],
    weights: &PackedView,
    activations: Activations,
) -> Result<(), CompressError> {
    product_on(y, x, weights, activations, Instructions::best())
}

/// What the processor can do.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Instructions {
    /// As compiled, with the vectors that `vectorised` finds.
    Plain,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
}

impl Instructions {
    fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        return match simd::Width::best() {
            simd::Width::Avx512 if is_x86_feature_detected!("avx512vnni") => Self::Avx512,
            simd::Width::Baseline => Self::Plain,
            _ => Self::Avx2,
        };
        #[cfg(not(target_arch = "x86_64"))]
        Self::Plain
    }
}

fn product_on(
    y: &mut [f32],
    x: &[f32],
    weights: &PackedView,
    activations: Activations,
    instructions: Instructions,
) -> Result<(), CompressError> {
    let rows = rows_of(y, x, weights)?;
    let (d_out, d_in) = (weights.d_out, weights.d_in);
    let threads = rayon::current_num_threads();
    let count = match weights.codes.len() < ALONE || threads == 1 {
        true => d_out,
        false => (PIECE / weights.scheme.row_bytes(d_in)).clamp(1, d_out.div_ceil(threads)),
    };
    match activations {
        Activations::F32 => {
            let inputs = WideInputs::new(x, weights);
            by_pieces(y, rows, weights, count, |piece, y| match instructions {
                // SAFETY: `best` found the processor to have the instructions.
                #[cfg(target_arch = "x86_64")]
                Instructions::Avx512 => unsafe { avx512::product(y, &inputs, piece) },
                _ => plain::product(y, &inputs, piece),
            });
        }
        Activations::Int8 => {
            let inputs = Int8Inputs::new(x, weights);
            by_pieces(y, rows, weights, count, |piece, y| match instructions {
                // SAFETY: `best` found the processor to have the instructions.
                #[cfg(target_arch = "x86_64")]
                Instructions::Avx512 => unsafe { vnni::product(y, &inputs, piece) },
                // SAFETY: the same.
                #[cfg(target_arch = "x86_64")]
                Instructions::Avx2 => unsafe { avx2::product(y, &inputs, piece) },
                _ => plain::product_int8(y, &inputs, piece),
            });
        }
    }
    Ok(())
}

/// The rows of x and y.
fn rows_of(y: &[f32], x: &[f32], weights: &PackedView) -> Result<usize, CompressError> {
    let rows = x.len() / weights.d_in;
    check_length("x", x.len(), rows * weights.d_in)?;
    check_length("y", y.len(), rows * weights.d_out)?;
    Ok(rows)
}

/// Calls `product` with pieces of `count` rows of the weights and the outputs of each row of x that they give, on all
/// threads.
fn by_pieces(
    y: &mut [f32],
    rows: usize,
    weights: &PackedView,
    count: usize,
    product: impl Fn(&Piece, &mut [&mut [f32]]) + Sync,
) {
    if rows == 0 {
        return;
    }
    let d_out = weights.d_out;
    let rows_at = |from: usize, count: usize| Piece::new(weights, from..(from + count).min(d_out));
    if count >= d_out {
        let mut outputs: Vec<&mut [f32]> = y.chunks_exact_mut(d_out).collect();
        return product(&rows_at(0, d_out), &mut outputs);
    }
    if rows == 1 {
        let parts = y.par_chunks_mut(count).enumerate();
        return parts.for_each(|(i, y)| product(&rows_at(i * count, count), &mut [y]));
    }
    let mut iterators: Vec<_> = y
        .chunks_exact_mut(d_out)
        .map(|y| y.chunks_mut(count))
        .collect();
    let pieces: Vec<(usize, Vec<&mut [f32]>)> = (0..d_out)
        .step_by(count)
        .map(|from| {
            let parts = iterators.iter_mut().filter_map(|chunks| chunks.next());
            (from, parts.collect())
        })
        .collect();
    pieces
        .into_par_iter()
        .for_each(|(from, mut y)| product(&rows_at(from, count), &mut y));
}

#[cfg(test)]
mod tests;
