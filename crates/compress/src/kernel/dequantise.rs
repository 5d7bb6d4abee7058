//! Rows of packed weights as ordinary numbers, for products of many rows.

use std::ops::Range;

use half::bf16;

use super::AHEAD;
use super::simd::{prefetch, vectorised};
use crate::CompressError;
use crate::error::check_length;
use crate::packed::PackedView;
use crate::scheme::{Bits, Grid};

/// The weights of some rows in f32: exactly `s (q - z)`. `out` is `[rows, d_in]`.
///
/// Runs on the calling thread: callers that use several give each its own rows.
///
/// # Errors
///
/// For rows that the matrix does not have, and another length of `out`.
pub fn dequantise(
    out: &mut [f32],
    weights: &PackedView,
    rows: Range<usize>,
) -> Result<(), CompressError> {
    check(out.len(), weights, &rows)?;
    by_groups(
        out,
        weights,
        rows.start,
        |bits, out, codes, grid| match bits {
            Bits::Four => four_bits(out, codes, grid),
            Bits::Eight => eight_bits(out, codes, grid),
        },
    );
    Ok(())
}

/// The same, rounded to the nearest bf16.
///
/// # Errors
///
/// As [`dequantise`].
pub fn dequantise_bf16(
    out: &mut [bf16],
    weights: &PackedView,
    rows: Range<usize>,
) -> Result<(), CompressError> {
    check(out.len(), weights, &rows)?;
    by_groups(
        out,
        weights,
        rows.start,
        |bits, out, codes, grid| match bits {
            Bits::Four => four_bits_bf16(out, codes, grid),
            Bits::Eight => eight_bits_bf16(out, codes, grid),
        },
    );
    Ok(())
}

fn check(len: usize, weights: &PackedView, rows: &Range<usize>) -> Result<(), CompressError> {
    if rows.start > rows.end || rows.end > weights.d_out {
        return Err(CompressError::Option {
            option: "the range of rows",
            found: format!("{rows:?}"),
            allowed: "a range of the matrix' rows",
        });
    }
    check_length("out", len, rows.len() * weights.d_in)
}

fn by_groups<T>(
    out: &mut [T],
    weights: &PackedView,
    from: usize,
    group: impl Fn(Bits, &mut [T], &[u8], Grid),
) {
    let (scheme, groups) = (weights.scheme, weights.groups_per_row());
    let bytes = scheme.row_bytes(scheme.group());
    let codes = weights.codes[from * groups * bytes..].chunks_exact(bytes);
    let outs = out.chunks_exact_mut(scheme.group());
    for (n, (out, codes)) in outs.zip(codes).enumerate() {
        prefetch(codes.as_ptr().wrapping_add(AHEAD));
        let n = from * groups + n;
        let zero = match scheme.symmetric() {
            true => scheme.bits().middle(),
            false => weights.zeros[n],
        };
        let scale = weights.scales[n];
        group(scheme.bits(), out, codes, Grid { scale, zero });
    }
}

vectorised! {
    fn four_bits(out: &mut [f32], codes: &[u8], grid: Grid) {
        let table: [f32; 16] = std::array::from_fn(|q| grid.value(q as u8));
        for (out, &code) in out.as_chunks_mut::<2>().0.iter_mut().zip(codes) {
            *out = [table[usize::from(code & 15)], table[usize::from(code >> 4)]];
        }
    }

    fn eight_bits(out: &mut [f32], codes: &[u8], grid: Grid) {
        let (scale, zero) = (grid.scale.to_f32(), f32::from(grid.zero));
        for (out, &code) in out.iter_mut().zip(codes) {
            *out = scale * (f32::from(code) - zero);
        }
    }

    fn four_bits_bf16(out: &mut [bf16], codes: &[u8], grid: Grid) {
        let table: [bf16; 16] = std::array::from_fn(|q| nearest(grid.value(q as u8)));
        for (out, &code) in out.as_chunks_mut::<2>().0.iter_mut().zip(codes) {
            *out = [table[usize::from(code & 15)], table[usize::from(code >> 4)]];
        }
    }

    fn eight_bits_bf16(out: &mut [bf16], codes: &[u8], grid: Grid) {
        let (scale, zero) = (grid.scale.to_f32(), f32::from(grid.zero));
        for (out, &code) in out.iter_mut().zip(codes) {
            *out = nearest(scale * (f32::from(code) - zero));
        }
    }
}

/// The nearest bf16 of a finite number below the largest bf16, as all weights are; ties go to the even one.
#[inline(always)]
fn nearest(x: f32) -> bf16 {
    let bits = x.to_bits();
    bf16::from_bits(((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16)
}
