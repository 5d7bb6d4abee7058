//! The product with f32 activations on AVX-512.
//!
//! A 4-bit code selects one of sixteen values in a register (`vpermps`, which reads only the low four bits of an
//! index), so that a value takes a shift and a look-up. An 8-bit code is put below the exponent of 2^23, which makes
//! it 2^23 + q, from which 2^23 + z is subtracted.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::inputs::{Tile, WideInputs};
use super::plain::by_tiles;
use super::simd::prefetch;
use super::{AHEAD, LANES, LINE, Piece};
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
    let shared = piece.words >= LANES;
    match (piece.bits, piece.zeros.is_some()) {
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
    let row = piece.row(i);
    let x = &x.values[from * x.stride..][..R * x.stride];
    let x: &[[Tile<f32, R>; V]] = x.as_chunks().0.as_chunks().0;
    let lane_groups = words(piece.lane_groups);
    let (lines, tail) = row.codes.as_chunks::<LINE>();
    let last = (!tail.is_empty()).then(|| padded(tail));
    let lines = lines.iter().chain(&last);
    let mut sums = [_mm512_setzero_ps(); R];
    for (b, (line, x)) in lines.zip(x).enumerate() {
        prefetch(line.as_ptr().wrapping_add(AHEAD));
        let codes = bytes(*line);
        let first = (b * LANES) >> piece.shift;
        let scales = spread(row.scales, first, lane_groups);
        let zeros = match row.zeros {
            Some(zeros) => spread(zeros, first, lane_groups),
            None => _mm512_set1_ps(if V == 8 { 8.0 } else { 128.0 }),
        };
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

/// For each lane the value of its group, where `first` is the block's first group.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn spread(values: &[f32], first: usize, lane_groups: __m512i) -> __m512 {
    let values = values[first..].first_chunk();
    let values = values.expect("invariant: scales are followed by zeros");
    _mm512_permutexvar_ps(lane_groups, floats(*values))
}

/// The bytes of a last block, and then zeros.
pub(super) fn padded(tail: &[u8]) -> [u8; LINE] {
    let mut line = [0; LINE];
    line[..tail.len()].copy_from_slice(tail);
    line
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

/// A register of bytes.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn bytes(values: [u8; LINE]) -> __m512i {
    // SAFETY: any bits are valid in both types.
    unsafe { transmute::<[u8; LINE], __m512i>(values) }
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
