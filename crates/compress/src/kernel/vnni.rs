//! The product with 8-bit activations on AVX-512 with VNNI, whose `vpdpbusd` adds four products of an unsigned and a
//! signed byte to each lane.

use std::arch::x86_64::*;

use super::avx512::{floats, fold, integers};
use super::inputs::Int8Inputs;
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
    let inputs: [_; R] = std::array::from_fn(|r| {
        let lines = (from + r) * x.blocks;
        (
            &x.values[lines * PLANES..][..x.blocks * PLANES],
            &x.scales[lines..][..x.blocks],
            &x.sums[lines..][..x.blocks],
        )
    });
    let lane_groups = integers(&piece.lane_groups());
    let halves = _mm512_set1_epi8(15);
    let mut sums = [_mm512_setzero_ps(); R];
    let (lines, tail) = row.codes.as_chunks::<LINE>();
    for b in 0..lines.len() + usize::from(!tail.is_empty()) {
        let words = match lines.get(b) {
            Some(line) => {
                prefetch(line.as_ptr().wrapping_add(AHEAD));
                // SAFETY: a line is 64 bytes.
                unsafe { _mm512_loadu_si512(line.as_ptr().cast()) }
            }
            None => {
                let present = (1_u64 << tail.len()) - 1;
                // SAFETY: the bytes of the tail are read, and no others.
                unsafe { _mm512_maskz_loadu_epi8(present, tail.as_ptr().cast()) }
            }
        };
        let first = (b * LANES) >> piece.shift();
        let spread = |values: &[f32]| _mm512_permutexvar_ps(lane_groups, floats(&values[first..]));
        let scales = spread(row.scales);
        let codes = match PLANES {
            2 => [
                _mm512_and_si512(words, halves),
                _mm512_and_si512(_mm512_srli_epi32::<4>(words), halves),
            ],
            _ => [words; 2],
        };
        let minus_zeros = match row.zeros {
            Some(zeros) if ZEROS => {
                _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_cvtps_epi32(spread(zeros)))
            }
            _ => _mm512_setzero_si512(),
        };
        for r in 0..R {
            let (values, scales_x, sums_x) = inputs[r];
            // SAFETY: sixteen values.
            let sum = unsafe { _mm512_loadu_si512(sums_x[b].0.as_ptr().cast()) };
            let mut dots = match ZEROS {
                true => _mm512_mullo_epi32(sum, minus_zeros),
                false => sum,
            };
            for plane in 0..PLANES {
                let u = integers(&values[b * PLANES + plane].0);
                dots = _mm512_dpbusd_epi32(dots, codes[plane], u);
            }
            let scale = _mm512_mul_ps(scales, floats(&scales_x[b].0));
            sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), scale, sums[r]);
        }
    }
    for (r, &sum) in sums.iter().enumerate() {
        y[from + r][i] = fold(sum);
    }
}
