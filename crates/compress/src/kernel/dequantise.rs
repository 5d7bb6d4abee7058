//! Rows of packed weights as ordinary numbers, for products of many rows.

use std::ops::Range;

use half::bf16;

use super::AHEAD;
#[cfg(target_arch = "x86_64")]
use super::simd::Width;
use super::simd::{prefetch, vectorised};
use crate::CompressError;
use crate::error::check_length;
use crate::packed::PackedView;
use crate::scheme::{Bits, Grid};

/// What weights are dequantised to: f32 or bf16.
pub trait Dequantised: Copy + sealed::Group {}

impl Dequantised for f32 {}
impl Dequantised for bf16 {}

mod sealed {
    use super::{Bits, Grid};

    pub trait Group: Sized {
        /// What gives the weights of the codes of a group.
        fn of_group(bits: Bits) -> fn(&mut [Self], &[u8], Grid);
    }
}

impl sealed::Group for f32 {
    fn of_group(bits: Bits) -> fn(&mut [Self], &[u8], Grid) {
        match bits {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the processor has the instructions.
            Bits::Four if has_avx512() => |out, codes, grid| unsafe {
                avx512::four_bits(out, codes, grid);
            },
            Bits::Four => four_bits,
            Bits::Eight => eight_bits,
        }
    }
}

impl sealed::Group for bf16 {
    fn of_group(bits: Bits) -> fn(&mut [Self], &[u8], Grid) {
        match bits {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the processor has the instructions.
            Bits::Four if has_avx512() => |out, codes, grid| unsafe {
                avx512::four_bits_bf16(out, codes, grid);
            },
            Bits::Four => four_bits_bf16,
            Bits::Eight => eight_bits_bf16,
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    Width::best() == Width::Avx512
}

/// The weights of some rows: exactly `s (q - z)` in f32, or that rounded to the nearest bf16. `out` is `[rows, d_in]`.
///
/// Runs on the calling thread: callers that use several give each its own rows.
///
/// # Errors
///
/// For rows that the matrix does not have, and another length of `out`.
pub fn dequantise<T: Dequantised>(
    out: &mut [T],
    weights: &PackedView,
    rows: Range<usize>,
) -> Result<(), CompressError> {
    if rows.start > rows.end || rows.end > weights.d_out {
        return Err(CompressError::Option {
            option: "the range of rows",
            found: format!("{rows:?}"),
            allowed: "a range of the matrix' rows",
        });
    }
    check_length("out", out.len(), rows.len() * weights.d_in)?;
    let (scheme, groups) = (weights.scheme, weights.groups_per_row());
    let bytes = scheme.row_bytes(scheme.group());
    let first = rows.start * groups;
    let of_group = T::of_group(scheme.bits());
    let codes = weights.codes[first * bytes..].chunks_exact(bytes);
    let outs = out.chunks_exact_mut(scheme.group());
    for (group, (out, codes)) in (first..).zip(outs.zip(codes)) {
        prefetch(codes.as_ptr().wrapping_add(AHEAD));
        let zero = match scheme.symmetric() {
            true => scheme.bits().middle(),
            false => weights.zeros[group],
        };
        let scale = weights.scales[group];
        of_group(out, codes, Grid { scale, zero });
    }
    Ok(())
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

/// Codes of 4 bits with look-ups in a register of the group's sixteen values.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;
    use std::mem::transmute;

    use half::bf16;

    use super::{Grid, nearest};

    /// Sixteen values at a time, from eight bytes.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
    pub(super) fn four_bits(out: &mut [f32], codes: &[u8], grid: Grid) {
        let zero = _mm512_set1_ps(grid.zero.into());
        // SAFETY: any bits are valid in both types.
        let codes_of_lanes = unsafe {
            transmute::<[f32; 16], __m512>([
                0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0,
                15.0,
            ])
        };
        let scale = _mm512_set1_ps(grid.scale.to_f32());
        let table = _mm512_mul_ps(scale, _mm512_sub_ps(codes_of_lanes, zero));
        let shifts = _mm512_set4_epi32(12, 8, 4, 0);
        let shifts = _mm512_mask_add_epi32(shifts, 0xf0f0, shifts, _mm512_set1_epi32(16));
        for (out, codes) in out
            .as_chunks_mut()
            .0
            .iter_mut()
            .zip(codes.as_chunks::<8>().0)
        {
            let [low, high] = [0, 4].map(|at| {
                i32::from_le_bytes([codes[at], codes[at + 1], codes[at + 2], codes[at + 3]])
            });
            let words = _mm512_mask_set1_epi32(_mm512_set1_epi32(low), 0xff00, high);
            let values = _mm512_permutexvar_ps(_mm512_srlv_epi32(words, shifts), table);
            // SAFETY: any bits are valid in both types.
            *out = unsafe { transmute::<__m512, [f32; 16]>(values) };
        }
    }

    /// Thirty-two values at a time, from sixteen bytes.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
    pub(super) fn four_bits_bf16(out: &mut [bf16], codes: &[u8], grid: Grid) {
        // Twice, for the look-up reads five bits of an index and four of them are the code.
        let table: [u16; 32] = std::array::from_fn(|q| nearest(grid.value(q as u8 & 15)).to_bits());
        // Each 16 bits with four codes in four lanes, shifted to each of them.
        let sources: [u16; 32] = std::array::from_fn(|l| l as u16 / 4);
        let shifts: [u16; 32] = std::array::from_fn(|l| l as u16 % 4 * 4);
        // SAFETY: any bits are valid in both types.
        let [table, sources, shifts] =
            unsafe { [table, sources, shifts].map(|lanes| transmute::<[u16; 32], __m512i>(lanes)) };
        for (out, codes) in out.as_chunks_mut().0.iter_mut().zip(codes.as_chunks().0) {
            // SAFETY: any bits are valid in both types.
            let codes = unsafe { transmute::<[u8; 16], __m128i>(*codes) };
            let words = _mm512_permutexvar_epi16(sources, _mm512_castsi128_si512(codes));
            let values = _mm512_permutexvar_epi16(_mm512_srlv_epi16(words, shifts), table);
            // SAFETY: any bits are valid in both types; bf16 is its bits.
            *out = unsafe { transmute::<__m512i, [bf16; 32]>(values) };
        }
    }
}
