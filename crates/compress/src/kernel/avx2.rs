//! The product with 8-bit activations on AVX2, whose `vpmaddubsw` multiplies unsigned with signed bytes and adds pairs
//! in 16 bits. Four bits of a weight leave room there; those of eight bits are made signed, and their sign moved to
//! the input, so that a pair is at most 2 * 128 * 127.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::inputs::Tile;
use super::integers::Int8Inputs;
use super::piece::Piece;
use super::plain::{by_tiles, fold, grids, words};
use super::{LANES, LINE};
use crate::scheme::Bits;

/// As [`plain::product_int8`](super::plain::product_int8).
#[target_feature(enable = "avx2,fma")]
pub(super) fn product(y: &mut [&mut [f32]], x: &Int8Inputs, piece: &Piece) {
    match piece.bits {
        Bits::Four => rows::<2>(y, x, piece),
        Bits::Eight => rows::<1>(y, x, piece),
    }
}

#[target_feature(enable = "avx2,fma")]
fn rows<const PLANES: usize>(y: &mut [&mut [f32]], x: &Int8Inputs, piece: &Piece) {
    for i in 0..piece.rows() {
        by_tiles!(y.len(), |from| row::<PLANES>(y, x, piece, from, i));
    }
}

/// Output i for R rows of x.
#[expect(
    clippy::needless_range_loop,
    reason = "constant ranges, which are unrolled"
)]
#[target_feature(enable = "avx2,fma")]
fn row<const PLANES: usize, const R: usize>(
    y: &mut [&mut [f32]],
    x: &Int8Inputs,
    piece: &Piece,
    from: usize,
    i: usize,
) {
    let (values, scales_x, sums_x) = x.tile::<R>(from, PLANES);
    let values: &[[Tile<u32, R>; PLANES]] = values.as_chunks().0;
    // Codes of eight bits are less 128 here.
    let offset = if PLANES == 2 { 0 } else { 128 };
    let mut sums = [[_mm256_setzero_ps(); 2]; R];
    for (s, blocks) in piece.spans().enumerate() {
        let (of_groups, zeros) = grids(piece, i, s);
        let mut scales = [[0.0; LANES]; R];
        let mut minus_zeros = [0; LANES];
        for l in 0..LANES {
            minus_zeros[l] = offset - i32::from(zeros[l]);
            for r in 0..R {
                scales[r][l] = of_groups[l] * scales_x[s][r].0[l];
            }
        }
        for b in blocks {
            let codes = words(&piece.codes(i)[b * LINE..]);
            for half in 0..2 {
                // Groups have at least four words, so that eight lanes are of one or two of them.
                let lane = b * LANES + 8 * half;
                let groups = [lane, lane + 4].map(|lane| (lane >> piece.shift) % LANES);
                let codes = eight_of(&codes, half);
                let minus_zeros = _mm256_set_m128i(
                    _mm_set1_epi32(minus_zeros[groups[1]]),
                    _mm_set1_epi32(minus_zeros[groups[0]]),
                );
                for r in 0..R {
                    let u = eight_of(&values[b][0][r].0, half);
                    let u_odd = eight_of(&values[b][PLANES - 1][r].0, half);
                    let sum = eight_signed(&sums_x[b][r].0, half);
                    let dots = _mm256_add_epi32(
                        _mm256_mullo_epi32(sum, minus_zeros),
                        products::<PLANES>(codes, u, u_odd),
                    );
                    let scales = _mm256_set_m128(
                        _mm_set1_ps(scales[r][groups[1]]),
                        _mm_set1_ps(scales[r][groups[0]]),
                    );
                    let dots = _mm256_cvtepi32_ps(dots);
                    sums[r][half] = _mm256_fmadd_ps(dots, scales, sums[r][half]);
                }
            }
        }
    }
    for r in 0..R {
        // SAFETY: any bits are valid in both types.
        let lanes = unsafe { transmute::<[__m256; 2], [f32; LANES]>(sums[r]) };
        y[from + r][i] = fold(lanes);
    }
}

/// For each lane the sum of its products: of codes of four bits with inputs at even and at odd places, or of codes of
/// eight bits less 128 with all of them.
#[target_feature(enable = "avx2")]
#[inline]
fn products<const PLANES: usize>(codes: __m256i, u: __m256i, u_odd: __m256i) -> __m256i {
    let pairs = if PLANES == 2 {
        let mask = _mm256_set1_epi8(15);
        let low = _mm256_and_si256(codes, mask);
        let high = _mm256_and_si256(_mm256_srli_epi32::<4>(codes), mask);
        _mm256_add_epi16(
            _mm256_maddubs_epi16(low, u),
            _mm256_maddubs_epi16(high, u_odd),
        )
    } else {
        let codes = _mm256_xor_si256(codes, _mm256_set1_epi8(i8::MIN));
        _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(u, codes))
    };
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}

/// Half a line.
#[target_feature(enable = "avx2")]
#[inline]
fn eight_of(lanes: &[u32; LANES], half: usize) -> __m256i {
    // SAFETY: any bits are valid in both types.
    unsafe { transmute::<[u32; 8], __m256i>(lanes.as_chunks().0[half]) }
}

/// The same.
#[target_feature(enable = "avx2")]
#[inline]
fn eight_signed(lanes: &[i32; LANES], half: usize) -> __m256i {
    // SAFETY: any bits are valid in both types.
    unsafe { transmute::<[i32; 8], __m256i>(lanes.as_chunks().0[half]) }
}
