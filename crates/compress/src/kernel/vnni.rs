//! The product with 8-bit activations on AVX-512 with VNNI, whose `vpdpbusd` adds four products of an unsigned and a
//! signed byte to each lane.
//!
//! Several rows of W are multiplied at once: they share the loads of the input, and their sums do not wait for each
//! other.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::LANES;
use super::avx512::{bytes, floats, fold, groups_of_lanes, halves, line, words};
use super::inputs::Tile;
use super::integers::Int8Inputs;
use super::piece::Piece;
use super::plain::by_tiles;
use crate::scheme::Bits;

/// Rows of W that are multiplied at once.
const AT_ONCE: usize = 8;

/// As [`plain::product_int8`](super::plain::product_int8).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
pub(super) fn product(y: &mut [&mut [f32]], x: &Int8Inputs, piece: &Piece) {
    match (piece.bits, piece.symmetric()) {
        (Bits::Four, true) => rows::<2, true>(y, x, piece),
        (Bits::Four, false) => rows::<2, false>(y, x, piece),
        (Bits::Eight, true) => rows::<1, true>(y, x, piece),
        (Bits::Eight, false) => rows::<1, false>(y, x, piece),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
fn rows<const PLANES: usize, const SYMMETRIC: bool>(
    y: &mut [&mut [f32]],
    x: &Int8Inputs,
    piece: &Piece,
) {
    let mut i = 0;
    if let [y] = y {
        while i + AT_ONCE <= piece.rows() {
            let sums = sums::<PLANES, SYMMETRIC, AT_ONCE, 1>(x, piece, 0, i);
            for n in 0..AT_ONCE {
                y[i + n] = fold(sums[0][n]);
            }
            i += AT_ONCE;
        }
    }
    for i in i..piece.rows() {
        by_tiles!(y.len(), |from| row::<PLANES, SYMMETRIC>(
            y, x, piece, from, i
        ));
    }
}

/// Output i for R rows of x.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
fn row<const PLANES: usize, const SYMMETRIC: bool, const R: usize>(
    y: &mut [&mut [f32]],
    x: &Int8Inputs,
    piece: &Piece,
    from: usize,
    i: usize,
) {
    let sums = sums::<PLANES, SYMMETRIC, 1, R>(x, piece, from, i);
    for r in 0..R {
        y[from + r][i] = fold(sums[r][0]);
    }
}

/// The lanes of outputs i to i + N for R rows of x.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
#[inline]
fn sums<const PLANES: usize, const SYMMETRIC: bool, const N: usize, const R: usize>(
    x: &Int8Inputs,
    piece: &Piece,
    from: usize,
    i: usize,
) -> [[__m512; N]; R] {
    let (values, scales_x, sums_x) = x.tile::<R>(from, PLANES);
    let values: &[[Tile<u32, R>; PLANES]] = values.as_chunks().0;
    let mut codes = [&[][..]; N];
    let mut of_groups = [&[][..]; N];
    let mut zeros = [&[][..]; N];
    for n in 0..N {
        codes[n] = piece.codes(i + n);
        of_groups[n] = piece.scales(i + n);
        if !SYMMETRIC {
            zeros[n] = piece.zeros(i + n).unwrap_or_default();
        }
    }
    let nothing = _mm512_setzero_si512();
    let mut sums = [[_mm512_setzero_ps(); N]; R];
    for (s, blocks) in piece.spans().enumerate() {
        let mut scales = [[_mm512_setzero_ps(); N]; R];
        let mut minus_zeros = [nothing; N];
        for n in 0..N {
            let of_groups = halves(of_groups[n], s);
            for r in 0..R {
                scales[r][n] = _mm512_mul_ps(of_groups, floats(scales_x[s][r].0));
            }
            // In the lower halves of words. The upper ones stay zero, and so do products of 16 bits with them: of a
            // sum only the lower half counts, where its at most 8 * 127 have room.
            minus_zeros[n] = match SYMMETRIC {
                true => _mm512_sub_epi16(
                    nothing,
                    _mm512_set1_epi32(if PLANES == 2 { 8 } else { 128 }),
                ),
                false => _mm512_sub_epi16(nothing, bytes(zeros[n], s)),
            };
        }
        for b in blocks {
            let groups = groups_of_lanes(b, piece.shift);
            let (values, sums_x) = (&values[b], &sums_x[b]);
            for n in 0..N {
                let codes = planes::<PLANES>(line(codes[n], b));
                let minus_zeros = match SYMMETRIC {
                    true => minus_zeros[n],
                    false => _mm512_permutexvar_epi32(groups, minus_zeros[n]),
                };
                for r in 0..R {
                    let sum = signed(sums_x[r].0);
                    let mut dots = _mm512_madd_epi16(sum, minus_zeros);
                    for plane in 0..PLANES {
                        dots = _mm512_dpbusd_epi32(dots, codes[plane], words(values[plane][r].0));
                    }
                    let scales = _mm512_permutexvar_ps(groups, scales[r][n]);
                    sums[r][n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), scales, sums[r][n]);
                }
            }
        }
    }
    sums
}

/// A byte for each code: of four bits those of the lower halves, then those of the upper halves.
#[target_feature(enable = "avx512f")]
#[inline]
fn planes<const PLANES: usize>(codes: __m512i) -> [__m512i; PLANES] {
    let mut planes = [codes; PLANES];
    if PLANES == 2 {
        let mask = _mm512_set1_epi8(15);
        planes[0] = _mm512_and_si512(codes, mask);
        planes[1] = _mm512_and_si512(_mm512_srli_epi32::<4>(codes), mask);
    }
    planes
}

/// A register of signed words.
#[target_feature(enable = "avx512f")]
#[inline]
fn signed(values: [i32; LANES]) -> __m512i {
    // SAFETY: any bits are valid in both types.
    unsafe { transmute::<[i32; LANES], __m512i>(values) }
}
