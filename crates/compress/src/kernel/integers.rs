//! The input of a product rounded to integers of 8 bits, in the order in which blocks of codes meet it.
//!
//! ```text
//! x = t u,   t = max |x| / 127 of a row and group,   u in -127 .. 127, ties to even
//! ```

use super::inputs::{Lanes, Tile, tiles};
use super::simd::vectorised;
use super::{LANES, LINE};
use crate::CompressError;
use crate::error::check_length;
use crate::packed::PackedView;
use crate::scheme::Scheme;

/// Rows of 8-bit integers with scales, in tiles of 8, 4, 2 or 1. The padding of the last block and of the last
/// span is zero.
pub(super) struct Int8Inputs {
    /// Blocks of a row.
    blocks: usize,
    /// Spans of sixteen groups of a row.
    spans: usize,
    /// Tile after tile, `[blocks, V / 4, R]`: per lane four integers, as the bytes of a word. With 8-bit weights those
    /// of the word's inputs; with 4-bit weights in the first line those of inputs 0, 2, 4 and 6, in the second the
    /// others, as the lower and upper halves of a word's bytes come.
    values: Vec<Lanes<u32>>,
    /// Tile after tile, `[spans, R]`: the scales of sixteen groups.
    scales: Vec<Lanes<f32>>,
    /// Tile after tile, `[blocks, R]`: the sum of each lane's integers.
    sums: Vec<Lanes<i32>>,
}

/// Inputs less than this are rounded to zero, for the inverse of their scale would not be finite.
const LEAST: f32 = 127.0 * f32::MIN_POSITIVE;
/// 1.5 * 2^23: the last bits of the sum with a number of at most 2^22 are the nearest integer.
const TO_INTEGER: f32 = 12_582_912.0;

impl Int8Inputs {
    pub(super) fn new(x: &[f32], weights: &PackedView) -> Self {
        let (d_in, group) = (weights.d_in, weights.scheme.group());
        let planes = 32 / weights.scheme.bits().count() / 4;
        let blocks = d_in.div_ceil(LINE * planes);
        let spans = d_in.div_ceil(LANES * group);
        let rows = x.len() / d_in;
        let mut inputs = Self {
            blocks,
            spans,
            values: vec![Lanes([0; LANES]); rows * blocks * planes],
            scales: vec![Lanes([0.0; LANES]); rows * spans],
            sums: vec![Lanes([0; LANES]); rows * blocks],
        };
        let mut integers = vec![[0; LINE]; blocks * planes];
        let mut of_groups = vec![0.0; d_in / group];
        for (from, tile) in tiles(rows) {
            let values = &mut inputs.values[from * blocks * planes..];
            let scales = &mut inputs.scales[from * spans..];
            let sums = &mut inputs.sums[from * blocks..];
            for (r, x) in x[from * d_in..].chunks_exact(d_in).take(tile).enumerate() {
                round(x, group, integers.as_flattened_mut(), &mut of_groups);
                let lanes = scales[r..].iter_mut().step_by(tile);
                let lanes = lanes.flat_map(|lanes| &mut lanes.0);
                for (lane, scale) in lanes.zip(&of_groups) {
                    *lane = *scale;
                }
                let to = (&mut values[r..], &mut sums[r..]);
                match planes {
                    1 => in_order(&integers, to, tile),
                    _ => by_parity(integers.as_chunks().0, to, tile),
                }
            }
        }
        inputs
    }

    /// Values, scales and sums of R rows.
    #[inline(always)]
    #[expect(clippy::type_complexity, reason = "three slices")]
    pub(super) fn tile<const R: usize>(
        &self,
        from: usize,
        planes: usize,
    ) -> (&[Tile<u32, R>], &[Tile<f32, R>], &[Tile<i32, R>]) {
        let blocks = from * self.blocks..(from + R) * self.blocks;
        let values = &self.values[blocks.start * planes..blocks.end * planes];
        let scales = &self.scales[from * self.spans..(from + R) * self.spans];
        let sums = &self.sums[blocks];
        (
            values.as_chunks().0,
            scales.as_chunks().0,
            sums.as_chunks().0,
        )
    }
}

/// The inputs `[rows, d_in]` that products with [`Activations::Int8`](crate::Activations::Int8) take for x: each row
/// and group of 32, 64 or 128 rounded to 8 bits.
///
/// # Errors
///
/// If x is not of whole groups.
pub fn rounded_inputs(x: &[f32], scheme: Scheme) -> Result<Vec<f32>, CompressError> {
    let group = scheme.group();
    check_length("x", x.len(), x.len().next_multiple_of(group))?;
    let mut integers = vec![0; x.len()];
    let mut scales = vec![0.0; x.len() / group];
    round(x, group, &mut integers, &mut scales);
    let mut rounded = vec![0.0; x.len()];
    widen(&mut rounded, &integers, &scales);
    Ok(rounded)
}

/// The integers of a row as words of four neighbours, and of each group the scale and the sum of the integers.
pub(super) fn to_words(
    x: &[f32],
    group: usize,
    words: &mut [u32],
    scales: &mut [f32],
    sums: &mut [i32],
) {
    let mut integers = vec![0_i8; x.len()];
    round(x, group, &mut integers, scales);
    for (sum, integers) in sums.iter_mut().zip(integers.chunks_exact(group)) {
        *sum = integers.iter().map(|u| i32::from(*u)).sum();
    }
    for (word, integers) in words.iter_mut().zip(integers.as_chunks().0) {
        *word = u32::from_le_bytes(integers.map(|u: i8| u as u8));
    }
}

/// The integers nearest to x / t, and t. Infinities and NaN make the scale so, and the result non-finite.
#[inline(always)]
fn to_integers(x: &[f32], integers: &mut [i8], scale: &mut f32) {
    // Bits of numbers without sign are ordered as the numbers, and those of NaN above them.
    let mut largest = [0_u32; LANES];
    let (x, integers) = (
        x.as_chunks::<LANES>().0,
        integers.as_chunks_mut::<LANES>().0,
    );
    for x in x {
        for l in 0..LANES {
            largest[l] = largest[l].max(x[l].abs().to_bits());
        }
    }
    let largest = f32::from_bits(largest.into_iter().fold(0, u32::max));
    let inverse = match largest < LEAST {
        true => 0.0,
        false => 127.0 / largest,
    };
    *scale = match largest < LEAST {
        true => 0.0,
        false => largest / 127.0,
    };
    for (u, x) in integers.iter_mut().zip(x) {
        for l in 0..LANES {
            u[l] = (x[l] * inverse + TO_INTEGER).to_bits() as i8;
        }
    }
}

vectorised! {
    /// Rounds the groups of x, one scale each.
    fn round(x: &[f32], group: usize, integers: &mut [i8], scales: &mut [f32]) {
        let groups = x.chunks_exact(group).zip(integers.chunks_exact_mut(group));
        for ((x, integers), scale) in groups.zip(scales) {
            to_integers(x, integers, scale);
        }
    }

    fn widen(x: &mut [f32], integers: &[i8], scales: &[f32]) {
        let group = x.len() / scales.len().max(1);
        let groups = x.chunks_exact_mut(group.max(1)).zip(integers.chunks_exact(group.max(1)));
        for ((x, integers), scale) in groups.zip(scales) {
            for (x, u) in x.iter_mut().zip(integers) {
                *x = f32::from(*u) * scale;
            }
        }
    }

    /// Each word has four neighbouring integers.
    fn in_order(integers: &[[i8; LINE]], to: (&mut [Lanes<u32>], &mut [Lanes<i32>]), step: usize) {
        let (values, sums) = to;
        let lines = values.iter_mut().step_by(step).zip(sums.iter_mut().step_by(step));
        for ((value, sum), integers) in lines.zip(integers) {
            for l in 0..LANES {
                let bytes = [0, 1, 2, 3].map(|i| integers[4 * l + i] as u8);
                value.0[l] = u32::from_le_bytes(bytes);
                sum.0[l] = sum_of_bytes(value.0[l]);
            }
        }
    }

    /// Of eight neighbouring integers a word in the first line has those at even places, one in the second the others.
    fn by_parity(integers: &[[[i8; LINE]; 2]], to: (&mut [Lanes<u32>], &mut [Lanes<i32>]), step: usize) {
        let (values, sums) = to;
        let sums = sums.iter_mut().step_by(step);
        for ((integers, sum), b) in integers.iter().zip(sums).zip(0..) {
            let (mut even, mut odd) = ([0; LANES], [0; LANES]);
            for l in 0..LANES {
                let bytes = &integers.as_flattened()[8 * l..][..8];
                let all = u64::from_le_bytes(std::array::from_fn(|i| bytes[i] as u8));
                even[l] = at_even_places(all);
                odd[l] = at_even_places(all >> 8);
                sum.0[l] = sum_of_bytes(even[l]) + sum_of_bytes(odd[l]);
            }
            values[2 * b * step].0 = even;
            values[(2 * b + 1) * step].0 = odd;
        }
    }
}

/// Bytes 0, 2, 4 and 6.
#[inline(always)]
fn at_even_places(bytes: u64) -> u32 {
    let pairs = bytes & 0x00ff_00ff_00ff_00ff;
    let halves = (pairs | (pairs >> 8)) & 0x0000_ffff_0000_ffff;
    (halves | (halves >> 16)) as u32
}

#[inline(always)]
fn sum_of_bytes(word: u32) -> i32 {
    let byte = |k: u32| (word << (24 - 8 * k)) as i32 >> 24;
    byte(0) + byte(1) + byte(2) + byte(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_nearest_and_reach_127() {
        let mut x = [0.0; 32];
        x[..4].copy_from_slice(&[2.0, -1.0, 0.5, -2.0]);
        let (mut integers, mut scale) = ([1; 32], 0.0);
        to_integers(&x, &mut integers, &mut scale);
        assert_eq!(scale, 2.0 / 127.0);
        // 63.5 is rounded to the even 64, 31.75 to 32.
        assert_eq!(integers[..5], [127, -64, 32, -127, 0]);
        for x in [0.0, 1e-37, -1e-45] {
            to_integers(&[x; 32], &mut integers, &mut scale);
            assert_eq!((integers, scale), ([0; 32], 0.0));
        }
    }

    #[test]
    fn what_is_not_finite_shows_in_the_scale() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0; 32];
            x[20] = bad;
            let mut scale = 0.0;
            to_integers(&x, &mut [0; 32], &mut scale);
            assert!(!scale.is_finite());
        }
    }

    #[test]
    fn words_have_their_integers_by_parity() {
        let integers: [[i8; LINE]; 2] =
            std::array::from_fn(|p| std::array::from_fn(|i| (64 * p + i) as i8 - 100));
        let (mut values, mut sums) = ([Lanes([0; LANES]); 2], [Lanes([0; LANES])]);
        by_parity(&[integers], (&mut values, &mut sums), 1);
        let bytes = |word: u32| word.to_le_bytes().map(|byte| byte as i8);
        assert_eq!(bytes(values[0].0[0]), [-100, -98, -96, -94]);
        assert_eq!(bytes(values[1].0[15]), [21, 23, 25, 27]);
        assert_eq!(sums[0].0[0], -772);
    }

    #[test]
    fn inputs_are_rounded_by_group() {
        let scheme = Scheme::new(4, 32, true).unwrap();
        let mut x = [1.0; 64];
        (x[1], x[40]) = (0.003, -254.0);
        let rounded = rounded_inputs(&x, scheme).unwrap();
        assert_eq!(rounded[..2], [1.0, 0.0]);
        assert_eq!(rounded[39..41], [0.0, -254.0]);
        assert!(rounded_inputs(&x[..33], scheme).is_err());
    }
}
