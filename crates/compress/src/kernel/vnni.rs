//! The product with 8-bit activations on AVX-512 with VNNI, whose `vpdpbusd` adds four products of an unsigned and a
//! signed byte to each lane.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::avx512::{bytes, floats, fold, padded, spread, words};
use super::inputs::{Int8Inputs, Tile};
use super::plain::by_tiles;
use super::simd::prefetch;
use super::{AHEAD, LANES, LINE, Piece};
use crate::scheme::Bits;

/// As [`plain::product_int8`](super::plain::product_int8).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
pub(super) fn product(y: &mut [&mut [f32]], x: &Int8Inputs, piece: &Piece) {
    match (piece.bits, piece.zeros.is_some()) {
        (Bits::Four, false) => rows::<2, false>(y, x, piece),
        (Bits::Four, true) => rows::<2, true>(y, x, piece),
        (Bits::Eight, false) => rows::<1, false>(y, x, piece),
        (Bits::Eight, true) => rows::<1, true>(y, x, piece),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
fn rows<const PLANES: usize, const ZEROS: bool>(
    y: &mut [&mut [f32]],
    x: &Int8Inputs,
    piece: &Piece,
) {
    for i in 0..piece.rows() {
        by_tiles!(y.len(), |from| row::<PLANES, ZEROS>(y, x, piece, from, i));
    }
}

/// Output i for R rows of x.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
#[inline]
fn row<const PLANES: usize, const ZEROS: bool, const R: usize>(
    y: &mut [&mut [f32]],
    x: &Int8Inputs,
    piece: &Piece,
    from: usize,
    i: usize,
) {
    let row = piece.row(i);
    let lines = from * x.blocks..(from + R) * x.blocks;
    let values = &x.values[lines.start * PLANES..lines.end * PLANES];
    let values: &[[Tile<u32, R>; PLANES]] = values.as_chunks().0.as_chunks().0;
    let scales_x: &[Tile<f32, R>] = x.scales[lines.clone()].as_chunks().0;
    let sums_x: &[Tile<i32, R>] = x.sums[lines].as_chunks().0;
    let inputs = values.iter().zip(scales_x).zip(sums_x);
    let lane_groups = words(piece.lane_groups);
    let halves = _mm512_set1_epi8(15);
    let (lines, tail) = row.codes.as_chunks::<LINE>();
    let last = (!tail.is_empty()).then(|| padded(tail));
    let lines = lines.iter().chain(&last);
    let mut sums = [_mm512_setzero_ps(); R];
    for (b, (line, ((values, scales_x), sums_x))) in lines.zip(inputs).enumerate() {
        prefetch(line.as_ptr().wrapping_add(AHEAD));
        let codes = bytes(*line);
        let first = (b * LANES) >> piece.shift;
        let scales = spread(row.scales, first, lane_groups);
        let planes = match PLANES {
            2 => [
                _mm512_and_si512(codes, halves),
                _mm512_and_si512(_mm512_srli_epi32::<4>(codes), halves),
            ],
            _ => [codes; 2],
        };
        let minus_zeros = match row.zeros {
            Some(zeros) if ZEROS => {
                let zeros = _mm512_cvtps_epi32(spread(zeros, first, lane_groups));
                _mm512_sub_epi32(_mm512_setzero_si512(), zeros)
            }
            _ => _mm512_setzero_si512(),
        };
        for r in 0..R {
            let sum = integers(sums_x[r].0);
            let mut dots = match ZEROS {
                true => _mm512_mullo_epi32(sum, minus_zeros),
                false => sum,
            };
            for plane in 0..PLANES {
                let u = words(values[plane][r].0);
                dots = _mm512_dpbusd_epi32(dots, planes[plane], u);
            }
            let scale = _mm512_mul_ps(scales, floats(scales_x[r].0));
            sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), scale, sums[r]);
        }
    }
    for (r, &sum) in sums.iter().enumerate() {
        y[from + r][i] = fold(sum);
    }
}

/// A register of signed words.
#[target_feature(enable = "avx512f")]
#[inline]
fn integers(values: [i32; LANES]) -> __m512i {
    // SAFETY: any bits are valid in both types.
    unsafe { transmute::<[i32; LANES], __m512i>(values) }
}
