//! The product with 8-bit activations for many rows, such as those of a prompt.
//!
//! A panel is 32 outputs, whose codes are unpacked to bytes once and meet all rows of x. A tile is a panel and six
//! rows, whose sums stay in registers:
//!
//! ```text
//! dot_g = sum_i q_i u_i - z_g sum_i u_i        over the inputs of a group, exact
//! y     = dot_g (s_g t_g) + y                  group by group, fused
//! ```
//!
//! `vpdpbusd` adds four products of a code and an integer to each of sixteen outputs, so an instruction does the work of
//! four fused multiply-adds in f32. Sums are in another order than those of few rows; they too depend on neither the processor,
//! the number of threads, nor the other rows.

use rayon::prelude::*;

use super::integers::to_words;
use super::piece::{Piece, widened};
use super::simd::{prefetch, vectorised};
use super::{Instructions, LANES, by_pieces, rows_of};
use crate::CompressError;
use crate::packed::PackedView;
use crate::scheme::Bits;

/// Registers of outputs in a panel.
const REGISTERS: usize = 2;
/// Outputs of a panel.
const PANEL: usize = REGISTERS * LANES;
/// Rows of a tile: twelve integer and twelve float sums of the 32 registers of AVX-512.
const ROWS: usize = 6;
/// Bytes in a word.
const BYTES: usize = 4;

/// A value for each output of a panel.
type OfOutputs<T> = [[T; LANES]; REGISTERS];

/// As [`product`](super::product) with [`Activations::Int8`](crate::Activations::Int8), for many rows: from about 9 on it is
/// the faster of the two. It is the fastest path where [`many_rows_pay`]; elsewhere [`dequantise`](super::dequantise) blocks of
/// W and use an ordinary product.
///
/// # Errors
///
/// For lengths that do not match.
pub fn product_of_many(
    y: &mut [f32],
    x: &[f32],
    weights: &PackedView,
) -> Result<(), CompressError> {
    product_on(y, x, weights, Instructions::best())
}

/// Whether [`product_of_many`] is faster here than an ordinary product with widened weights.
pub fn many_rows_pay() -> bool {
    Instructions::best() == Instructions::Avx512
}

pub(super) fn product_on(
    y: &mut [f32],
    x: &[f32],
    weights: &PackedView,
    instructions: Instructions,
) -> Result<(), CompressError> {
    let rows = rows_of(y, x, weights)?;
    let inputs = Inputs::new(x, weights);
    by_pieces(y, rows, weights, PANEL, |piece, y| {
        let panel = Panel::new(weights, piece);
        for (i, y) in y.chunks_mut(ROWS).enumerate() {
            let tile = match y.len() {
                1 => put::<1>,
                2 => put::<2>,
                3 => put::<3>,
                4 => put::<4>,
                5 => put::<5>,
                _ => put::<6>,
            };
            tile(y, &inputs, i * ROWS, &panel, instructions);
        }
    });
    Ok(())
}

/// The outputs of a panel for rows `first..first + R` of x, and where they go.
fn put<const R: usize>(
    y: &mut [&mut [f32]],
    x: &Inputs,
    first: usize,
    panel: &Panel,
    instructions: Instructions,
) {
    let x = x.tile::<R>(first);
    for y in y.iter() {
        prefetch(y.as_ptr());
        prefetch(y.as_ptr().wrapping_add(LANES));
    }
    let mut sums = [[[0.0; LANES]; REGISTERS]; R];
    match instructions {
        // SAFETY: `best` found the processor to have the instructions.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 => unsafe { avx512::tile(&mut sums, x, panel) },
        _ => tile(&mut sums, x, panel),
    }
    for (y, sums) in y.iter_mut().zip(&sums) {
        y.copy_from_slice(&sums.as_flattened()[..y.len()]);
    }
}

/// Rows of 8-bit integers, in tiles of [`ROWS`] and one of what is left.
struct Inputs {
    /// Words of four neighbouring integers in a row.
    words: usize,
    groups: usize,
    /// Tile after tile, `[words, rows]`.
    values: Vec<u32>,
    /// Tile after tile, `[groups, rows]`.
    scales: Vec<f32>,
    /// The sum of a group's integers, in the same order.
    sums: Vec<i32>,
}

/// Column r of a matrix of so many columns.
fn put_column<T: Copy>(matrix: &mut [T], r: usize, columns: usize, values: &[T]) {
    for (to, value) in matrix[r..].iter_mut().step_by(columns).zip(values) {
        *to = *value;
    }
}

/// The parts of R rows of inputs.
#[derive(Clone, Copy)]
struct Rows<'a, const R: usize> {
    values: &'a [[u32; R]],
    scales: &'a [[f32; R]],
    sums: &'a [[i32; R]],
}

impl Inputs {
    fn new(x: &[f32], weights: &PackedView) -> Self {
        let (d_in, group) = (weights.d_in, weights.scheme.group());
        let (words, groups) = (d_in / BYTES, d_in / group);
        let rows = x.len() / d_in;
        let mut values = vec![0; rows * words];
        let mut scales = vec![0.0; rows * groups];
        let mut sums = vec![0; rows * groups];
        let tiles = (
            values.par_chunks_mut(ROWS * words),
            scales.par_chunks_mut(ROWS * groups),
            sums.par_chunks_mut(ROWS * groups),
            x.par_chunks(ROWS * d_in),
        );
        tiles.into_par_iter().for_each(|(values, scales, sums, x)| {
            let rows = x.len() / d_in;
            let mut row = (vec![0; words], vec![0.0; groups], vec![0; groups]);
            for (r, x) in x.chunks_exact(d_in).enumerate() {
                to_words(x, group, &mut row.0, &mut row.1, &mut row.2);
                put_column(values, r, rows, &row.0);
                put_column(scales, r, rows, &row.1);
                put_column(sums, r, rows, &row.2);
            }
        });
        Self {
            words,
            groups,
            values,
            scales,
            sums,
        }
    }

    /// R rows from a multiple of [`ROWS`] on.
    fn tile<const R: usize>(&self, first: usize) -> Rows<'_, R> {
        let groups = first * self.groups..(first + R) * self.groups;
        Rows {
            values: self.values[first * self.words..(first + R) * self.words]
                .as_chunks()
                .0,
            scales: self.scales[groups.clone()].as_chunks().0,
            sums: self.sums[groups].as_chunks().0,
        }
    }
}

/// The weights of up to 32 outputs, in lanes; lanes beyond the last are zero.
struct Panel {
    /// Words of a group.
    words: usize,
    /// `[d_in / 4]`: four neighbouring codes of each output.
    codes: Vec<OfOutputs<u32>>,
    /// `[groups]`
    scales: Vec<OfOutputs<f32>>,
    /// `[groups]`: less the zero point, in the lower half of a word; the upper half is zero.
    minus_zeros: Vec<OfOutputs<u32>>,
}

impl Panel {
    fn new(weights: &PackedView, piece: &Piece) -> Self {
        let groups = weights.groups_per_row();
        let middle = minus(weights.scheme.bits().middle());
        let mut panel = Self {
            words: weights.scheme.group() / BYTES,
            codes: vec![Default::default(); weights.d_in / BYTES],
            scales: vec![Default::default(); groups],
            minus_zeros: vec![[[middle; LANES]; REGISTERS]; groups],
        };
        for row in 0..piece.rows() {
            let lane = (row / LANES, row % LANES);
            match piece.bits {
                Bits::Four => put_halves(&mut panel.codes, lane, piece.codes(row)),
                Bits::Eight => put_bytes(&mut panel.codes, lane, piece.codes(row)),
            }
            for (to, scale) in panel.scales.iter_mut().zip(piece.scales(row)) {
                to[lane.0][lane.1] = widened(*scale);
            }
            let zeros = piece.zeros(row).unwrap_or_default();
            for (to, zero) in panel.minus_zeros.iter_mut().zip(zeros) {
                to[lane.0][lane.1] = minus(*zero);
            }
        }
        panel
    }

    /// Codes, scales and zero points of each group.
    #[inline(always)]
    fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        let codes = self.codes.chunks_exact(self.words);
        let grids = self.scales.iter().zip(&self.minus_zeros);
        codes
            .zip(grids)
            .map(|(codes, (scales, minus_zeros))| Group {
                codes,
                scales,
                minus_zeros,
            })
    }
}

/// The weights of a group of inputs.
struct Group<'a> {
    codes: &'a [OfOutputs<u32>],
    scales: &'a OfOutputs<f32>,
    minus_zeros: &'a OfOutputs<u32>,
}

/// Of 16 bits, in the lower half of a word.
fn minus(zero: u8) -> u32 {
    u32::from((-i16::from(zero)) as u16)
}

/// A word has four codes.
fn put_bytes(panel: &mut [OfOutputs<u32>], lane: (usize, usize), codes: &[u8]) {
    for (to, bytes) in panel.iter_mut().zip(codes.as_chunks().0) {
        to[lane.0][lane.1] = u32::from_le_bytes(*bytes);
    }
}

/// A word has eight codes, which become two words.
fn put_halves(panel: &mut [OfOutputs<u32>], lane: (usize, usize), codes: &[u8]) {
    for (to, bytes) in panel
        .as_chunks_mut::<2>()
        .0
        .iter_mut()
        .zip(codes.as_chunks().0)
    {
        let codes = u64::from(u32::from_le_bytes(*bytes));
        let codes = (codes | codes << 16) & 0x0000_ffff_0000_ffff;
        let codes = (codes | codes << 8) & 0x00ff_00ff_00ff_00ff;
        let codes = (codes | codes << 4) & 0x0f0f_0f0f_0f0f_0f0f;
        to[0][lane.0][lane.1] = codes as u32;
        to[1][lane.0][lane.1] = (codes >> 32) as u32;
    }
}

vectorised! {
    /// The outputs of a panel for R rows, added to zeros.
    fn tile<const R: usize>(sums: &mut [OfOutputs<f32>; R], x: Rows<'_, R>, panel: &Panel) {
        let of_groups = x.values.chunks_exact(panel.words).zip(x.scales).zip(x.sums);
        for (((values, scales_x), sums_x), group) in of_groups.zip(panel.groups()) {
            for r in 0..R {
                for n in 0..REGISTERS {
                    let mut dots = group.minus_zeros[n].map(|z| i32::from(z as i16) * sums_x[r]);
                    for (codes, values) in group.codes.iter().zip(values) {
                        for byte in 0..BYTES {
                            let u = i32::from((values[r] >> (8 * byte)) as i8);
                            for l in 0..LANES {
                                dots[l] += ((codes[n][l] >> (8 * byte)) & 0xff) as i32 * u;
                            }
                        }
                    }
                    for l in 0..LANES {
                        let scale = group.scales[n][l] * scales_x[r];
                        sums[r][n][l] = (dots[l] as f32).mul_add(scale, sums[r][n][l]);
                    }
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;
    use std::mem::transmute;

    use super::super::avx512::{floats, words};
    use super::{LANES, OfOutputs, Panel, REGISTERS, Rows};

    /// As [`tile`](super::tile).
    #[expect(
        clippy::needless_range_loop,
        reason = "constant ranges, which are unrolled"
    )]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
    pub(super) fn tile<const R: usize>(
        out: &mut [OfOutputs<f32>; R],
        x: Rows<'_, R>,
        panel: &Panel,
    ) {
        let mut sums = [[_mm512_setzero_ps(); REGISTERS]; R];
        let of_groups = x.values.chunks_exact(panel.words).zip(x.scales).zip(x.sums);
        for (((values, scales_x), sums_x), group) in of_groups.zip(panel.groups()) {
            let mut dots = [[_mm512_setzero_si512(); REGISTERS]; R];
            for r in 0..R {
                // At most 128 * 127, which is in the lower half; the upper one meets zeros.
                let sum = _mm512_set1_epi32(sums_x[r]);
                for n in 0..REGISTERS {
                    dots[r][n] = _mm512_madd_epi16(sum, words(group.minus_zeros[n]));
                }
            }
            for (codes, values) in group.codes.iter().zip(values) {
                let codes = codes.map(|codes| words(codes));
                for r in 0..R {
                    let value = _mm512_set1_epi32(values[r] as i32);
                    for n in 0..REGISTERS {
                        dots[r][n] = _mm512_dpbusd_epi32(dots[r][n], codes[n], value);
                    }
                }
            }
            for r in 0..R {
                let scale_x = _mm512_set1_ps(scales_x[r]);
                for n in 0..REGISTERS {
                    let scale = _mm512_mul_ps(floats(group.scales[n]), scale_x);
                    sums[r][n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r][n]), scale, sums[r][n]);
                }
            }
        }
        for (out, sums) in out.iter_mut().zip(sums) {
            // SAFETY: any bits are valid in both types.
            *out = sums.map(|sum| unsafe { transmute::<__m512, [f32; LANES]>(sum) });
        }
    }
}
