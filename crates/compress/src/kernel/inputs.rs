//! The input of a product, in the order in which blocks of codes meet it.

use super::LANES;
use crate::packed::PackedView;
use crate::scheme::Bits;

/// Sixteen values in a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Lanes<T>(pub(super) [T; LANES]);

/// Rows in f32. The padding of the last block is zero.
pub(super) struct WideInputs {
    /// Lines of a row: blocks times values per word.
    pub(super) stride: usize,
    /// `[rows, blocks, V]`: line k of a block has value k of each word.
    pub(super) values: Vec<Lanes<f32>>,
}

/// Rows of 8-bit integers with scales. The padding of the last block is zero.
pub(super) struct Int8Inputs {
    /// Blocks of a row.
    pub(super) blocks: usize,
    /// `[rows, blocks, V / 4]`: per lane four integers, as the bytes of a word. With 8-bit weights those of the
    /// word's inputs; with 4-bit weights in the first line those of inputs 0, 2, 4 and 6, in the second the others,
    /// as the lower and upper halves of a word's bytes come.
    pub(super) values: Vec<Lanes<u32>>,
    /// `[rows, blocks]`: each lane's scale.
    pub(super) scales: Vec<Lanes<f32>>,
    /// `[rows, blocks]`: the sum of each lane's integers; with symmetric weights times minus their zero point.
    pub(super) sums: Vec<Lanes<i32>>,
}

impl WideInputs {
    pub(super) fn new(x: &[f32], weights: &PackedView) -> Self {
        let per_word = 32 / weights.scheme.bits().count();
        let blocks = weights.d_in.div_ceil(LANES * per_word);
        let mut values = Vec::with_capacity(x.len() / weights.d_in * blocks * per_word);
        for row in x.chunks_exact(weights.d_in) {
            for block in row.chunks(LANES * per_word) {
                match per_word {
                    8 => transpose::<8>(block, &mut values),
                    _ => transpose::<4>(block, &mut values),
                }
            }
        }
        Self {
            stride: blocks * per_word,
            values,
        }
    }
}

/// Lines k = 0 .. V with value k of each group of V.
fn transpose<const V: usize>(block: &[f32], lines: &mut Vec<Lanes<f32>>) {
    let (words, _) = block.as_chunks::<V>();
    let mut transposed = [Lanes([0.0; LANES]); V];
    for (lane, word) in words.iter().enumerate() {
        for k in 0..V {
            transposed[k].0[lane] = word[k];
        }
    }
    lines.extend_from_slice(&transposed);
}

impl Int8Inputs {
    pub(super) fn new(x: &[f32], weights: &PackedView) -> Self {
        let (bits, d_in) = (weights.scheme.bits(), weights.d_in);
        let group = weights.scheme.group();
        let per_word = 32 / bits.count();
        let (planes, words) = (per_word / 4, group / per_word);
        let blocks = d_in.div_ceil(LANES * per_word);
        let lines = x.len() / d_in * blocks;
        let factor = match weights.scheme.symmetric() {
            true => -i32::from(bits.middle()),
            false => 1,
        };
        let mut inputs = Self {
            blocks,
            values: vec![Lanes([0; LANES]); lines * planes],
            scales: vec![Lanes([0.0; LANES]); lines],
            sums: vec![Lanes([0; LANES]); lines],
        };
        let mut integers = [0_i8; 128];
        for (n, x) in x.chunks_exact(group).enumerate() {
            let (row, in_row) = (n / (d_in / group), n % (d_in / group));
            let integers = &mut integers[..group];
            let scale = to_integers(x, integers);
            for (w, u) in integers.chunks_exact(per_word).enumerate() {
                let word = in_row * words + w;
                let (line, lane) = (row * blocks + word / LANES, word % LANES);
                inputs.scales[line].0[lane] = scale;
                inputs.sums[line].0[lane] = factor * u.iter().map(|&u| i32::from(u)).sum::<i32>();
                let bytes = |at: [usize; 4]| u32::from_le_bytes(at.map(|i| u[i] as u8));
                match bits {
                    Bits::Eight => inputs.values[line].0[lane] = bytes([0, 1, 2, 3]),
                    Bits::Four => {
                        inputs.values[2 * line].0[lane] = bytes([0, 2, 4, 6]);
                        inputs.values[2 * line + 1].0[lane] = bytes([1, 3, 5, 7]);
                    }
                }
            }
        }
        inputs
    }
}

/// The integers nearest to x / t, and t. NaN becomes 0; infinities make the scale infinite, and so the result
/// non-finite.
fn to_integers(x: &[f32], integers: &mut [i8]) -> f32 {
    // Bits of numbers without sign are ordered as the numbers, and those of NaN above them.
    let mut largest = [0_u32; LANES];
    let (chunks, _) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for l in 0..LANES {
            largest[l] = largest[l].max(chunk[l].abs().to_bits());
        }
    }
    let largest = f32::from_bits(largest.into_iter().fold(0, u32::max));
    let scale = largest / 127.0;
    if scale == 0.0 {
        integers.fill(0);
        return 0.0;
    }
    let inverse = 127.0 / largest;
    for (u, &x) in integers.iter_mut().zip(x) {
        *u = (x * inverse).round_ties_even() as i8;
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_nearest_and_reach_127() {
        let mut x = [0.0; 32];
        x[..4].copy_from_slice(&[2.0, -1.0, 0.5, -2.0]);
        let mut integers = [1; 32];
        assert_eq!(to_integers(&x, &mut integers), 2.0 / 127.0);
        // 63.5 is rounded to the even 64, 31.75 to 32.
        assert_eq!(integers[..5], [127, -64, 32, -127, 0]);
        assert_eq!(to_integers(&[0.0; 32], &mut integers), 0.0);
        assert_eq!(integers, [0; 32]);
    }

    #[test]
    fn what_is_not_finite_shows_in_the_scale() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0; 32];
            x[20] = bad;
            assert!(!to_integers(&x, &mut [0; 32]).is_finite());
        }
    }
}
