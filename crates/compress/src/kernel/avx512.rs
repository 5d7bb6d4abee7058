//! The product with f32 activations on AVX-512.
//!
//! A 4-bit code selects one of sixteen values in a register (`vpermps`, which reads only the low four bits of an
//! index), so that a value takes a shift and a look-up. An 8-bit code is put below the exponent of 2^23, which makes
//! it 2^23 + q, from which 2^23 + z is subtracted.

use std::arch::x86_64::*;
use std::mem::transmute;

use half::f16;

use super::inputs::{Tile, WideInputs};
use super::piece::Piece;
use super::plain::by_tiles;
use super::simd::prefetch;
use super::{AHEAD, LANES};
use crate::scheme::Bits;

/// No zero points.
const SYMMETRIC: u8 = 0;
/// One zero point for a block.
const SHARED: u8 = 1;
/// Zero points that differ between the lanes.
const MIXED: u8 = 2;

/// As [`plain::product`](super::plain::product).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
pub(super) fn product(y: &mut [&mut [f32]], x: &WideInputs, piece: &Piece) {
    let shared = 1 << piece.shift >= LANES;
    match (piece.bits, !piece.symmetric()) {
        (Bits::Four, false) => rows::<8, SYMMETRIC>(y, x, piece),
        (Bits::Four, true) if shared => rows::<8, SHARED>(y, x, piece),
        (Bits::Four, true) => rows::<8, MIXED>(y, x, piece),
        (Bits::Eight, false) => rows::<4, SYMMETRIC>(y, x, piece),
        (Bits::Eight, true) => rows::<4, MIXED>(y, x, piece),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
fn rows<const V: usize, const ZEROS: u8>(y: &mut [&mut [f32]], x: &WideInputs, piece: &Piece) {
    for i in 0..piece.rows() {
        by_tiles!(y.len(), |from| row::<V, ZEROS>(y, x, piece, from, i));
    }
}

/// Output i for R rows of x.
#[expect(
    clippy::needless_range_loop,
    reason = "constant ranges, which are unrolled"
)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
#[inline]
fn row<const V: usize, const ZEROS: u8, const R: usize>(
    y: &mut [&mut [f32]],
    x: &WideInputs,
    piece: &Piece,
    from: usize,
    i: usize,
) {
    let x = &x.values[from * x.stride..][..R * x.stride];
    let x: &[[Tile<f32, R>; V]] = x.as_chunks().0.as_chunks().0;
    let mut sums = [_mm512_setzero_ps(); R];
    let (codes, of_groups, zero_points) = (piece.codes(i), piece.scales(i), piece.zeros(i));
    for (s, blocks) in piece.spans().enumerate() {
        let scales = halves(of_groups, s);
        let zeros = match zero_points {
            Some(zeros) => bytes(zeros, s),
            None => _mm512_set1_epi32(piece.bits.middle().into()),
        };
        let zeros = _mm512_cvtepi32_ps(zeros);
        for b in blocks {
            let (codes, x) = (line(codes, b), &x[b]);
            let groups = groups_of_lanes(b, piece.shift);
            let scales = _mm512_permutexvar_ps(groups, scales);
            let zeros = _mm512_permutexvar_ps(groups, zeros);
            let table = match ZEROS {
                MIXED => table(),
                _ => _mm512_sub_ps(table(), zeros),
            };
            let zeros = match V {
                8 => zeros,
                _ => _mm512_add_ps(zeros, _mm512_set1_ps(TWO_TO_23)),
            };
            let v = value::<V, ZEROS>(codes, 0, table, zeros);
            let mut parts = [_mm512_setzero_ps(); R];
            for r in 0..R {
                parts[r] = _mm512_mul_ps(v, floats(x[0][r].0));
            }
            for k in 1..V {
                let v = value::<V, ZEROS>(codes, k, table, zeros);
                for r in 0..R {
                    parts[r] = _mm512_fmadd_ps(v, floats(x[k][r].0), parts[r]);
                }
            }
            for r in 0..R {
                sums[r] = _mm512_fmadd_ps(parts[r], scales, sums[r]);
            }
        }
    }
    for (r, &sum) in sums.iter().enumerate() {
        y[from + r][i] = fold(sum);
    }
}

/// Code k of each word, less the zero point.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn value<const V: usize, const ZEROS: u8>(
    codes: __m512i,
    k: usize,
    table: __m512,
    zeros: __m512,
) -> __m512 {
    if V == 4 {
        return _mm512_sub_ps(byte(codes, k), zeros);
    }
    let indices = _mm512_srlv_epi32(codes, _mm512_set1_epi32(4 * k as i32));
    let v = _mm512_permutexvar_ps(indices, table);
    match ZEROS {
        MIXED => _mm512_sub_ps(v, zeros),
        _ => v,
    }
}

const TWO_TO_23: f32 = 8_388_608.0;

/// 0 to 15.
#[target_feature(enable = "avx512f")]
#[inline]
fn table() -> __m512 {
    floats(std::array::from_fn(|i| i as f32))
}

/// 2^23 plus byte k of each word.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn byte(words: __m512i, k: usize) -> __m512 {
    // The lowest byte of each lane is byte k of the same lane; shuffles work within 16 bytes.
    let k = k as i32;
    let indices = _mm512_set4_epi32(12 + k, 8 + k, 4 + k, k);
    let exponent = _mm512_set1_epi32(TWO_TO_23.to_bits() as i32);
    let bits = _mm512_mask_shuffle_epi8(exponent, 0x1111_1111_1111_1111, words, indices);
    _mm512_castsi512_ps(bits)
}

/// For each lane of a block the number of its group, of which look-ups read the last four bits: that in the span.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn groups_of_lanes(block: usize, shift: u32) -> __m512i {
    let lanes = words(std::array::from_fn(|l| l as u32));
    let lanes = _mm512_add_epi32(lanes, _mm512_set1_epi32((block * LANES) as i32));
    _mm512_srl_epi32(lanes, _mm_cvtsi32_si128(shift as i32))
}

/// A block of a row's codes, with zeros after the last.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn line(codes: &[u8], block: usize) -> __m512i {
    let (lanes, from) = lanes(codes.len() / 4, block);
    let address = codes.as_ptr().cast::<i32>().wrapping_add(from);
    prefetch(address.wrapping_byte_add(AHEAD));
    // SAFETY: only lanes of the mask are read, which are words of the slice.
    unsafe { _mm512_maskz_loadu_epi32(lanes, address) }
}

/// A span of numbers in f32, with zeros after the last.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
pub(super) fn halves(values: &[f16], span: usize) -> __m512 {
    let (lanes, from) = lanes(values.len(), span);
    let address = values.as_ptr().cast::<i16>().wrapping_add(from);
    // SAFETY: only lanes of the mask are read, which are entries of the slice; f16 is its bits.
    _mm512_cvtph_ps(unsafe { _mm256_maskz_loadu_epi16(lanes, address) })
}

/// A span of numbers as words, with zeros after the last.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
pub(super) fn bytes(values: &[u8], span: usize) -> __m512i {
    let (lanes, from) = lanes(values.len(), span);
    let address = values.as_ptr().cast::<i8>().wrapping_add(from);
    // SAFETY: only lanes of the mask are read, which are entries of the slice.
    _mm512_cvtepu8_epi32(unsafe { _mm_maskz_loadu_epi8(lanes, address) })
}

/// Which of sixteen lanes are of a slice of so many entries, and where they begin.
#[inline(always)]
fn lanes(len: usize, number: usize) -> (__mmask16, usize) {
    let from = number * LANES;
    match len.saturating_sub(from) {
        left @ 0..LANES => ((1 << left) - 1, from),
        _ => (__mmask16::MAX, from),
    }
}

// Conversions of arrays instead of load instructions, because loads check their pointers when debug assertions are
// on, and such a check forces the vector through memory.

/// A register of floats.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn floats(values: [f32; LANES]) -> __m512 {
    // SAFETY: any bits are valid in both types.
    unsafe { transmute::<[f32; LANES], __m512>(values) }
}

/// A register of words.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn words(values: [u32; LANES]) -> __m512i {
    // SAFETY: any bits are valid in both types.
    unsafe { transmute::<[u32; LANES], __m512i>(values) }
}

/// The sum of the lanes, by halves.
#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
pub(super) fn fold(lanes: __m512) -> f32 {
    let half = _mm256_add_ps(
        _mm512_castps512_ps256(lanes),
        _mm512_extractf32x8_ps::<1>(lanes),
    );
    let quarter = _mm_add_ps(
        _mm256_castps256_ps128(half),
        _mm256_extractf128_ps::<1>(half),
    );
    let pair = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
    _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps::<1>(pair, pair)))
}
