//! The input of a product, in the order in which blocks of codes meet it.

use super::LANES;
use crate::packed::PackedView;

/// Sixteen values in a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Lanes<T>(pub(super) [T; LANES]);

/// Sixteen values of each of R rows.
pub(super) type Tile<T, const R: usize> = [Lanes<T>; R];

/// Rows in f32, in tiles of 8, 4, 2 or 1. The padding of the last block is zero.
pub(super) struct WideInputs {
    /// Lines of a row: blocks times values per word.
    pub(super) stride: usize,
    /// Tile after tile, `[blocks, V, R]`: line k of a block has value k of each word.
    pub(super) values: Vec<Lanes<f32>>,
}

/// Rows of 8-bit integers with scales, in tiles of 8, 4, 2 or 1. The padding of the last block is zero.
pub(super) struct Int8Inputs {
    /// Blocks of a row.
    pub(super) blocks: usize,
    /// Tile after tile, `[blocks, V / 4, R]`: per lane four integers, as the bytes of a word. With 8-bit weights those
    /// of the word's inputs; with 4-bit weights in the first line those of inputs 0, 2, 4 and 6, in the second the
    /// others, as the lower and upper halves of a word's bytes come.
    pub(super) values: Vec<Lanes<u32>>,
    /// Tile after tile, `[blocks, R]`: each lane's scale.
    pub(super) scales: Vec<Lanes<f32>>,
    /// The sum of each lane's integers; with symmetric weights times minus their zero point.
    pub(super) sums: Vec<Lanes<i32>>,
}

/// The first row and the number of rows of each tile.
fn tiles(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let tile = match rows - from {
            0 => return None,
            8.. => 8,
            4.. => 4,
            2.. => 2,
            _ => 1,
        };
        from += tile;
        Some((from - tile, tile))
    })
}

impl WideInputs {
    pub(super) fn new(x: &[f32], weights: &PackedView) -> Self {
        let (d_in, per_word) = (weights.d_in, 32 / weights.scheme.bits().count());
        let stride = d_in.div_ceil(LANES * per_word) * per_word;
        let rows = x.len() / d_in;
        let mut values = vec![Lanes([0.0; LANES]); rows * stride];
        for (from, tile) in tiles(rows) {
            let values = &mut values[from * stride..][..tile * stride];
            for (r, row) in x[from * d_in..][..tile * d_in]
                .chunks_exact(d_in)
                .enumerate()
            {
                let blocks = row.chunks(LANES * per_word);
                for (block, lines) in blocks.zip(values.chunks_exact_mut(per_word * tile)) {
                    for (lane, word) in block.chunks_exact(per_word).enumerate() {
                        for (line, &value) in lines.chunks_exact_mut(tile).zip(word) {
                            line[r].0[lane] = value;
                        }
                    }
                }
            }
        }
        Self { stride, values }
    }
}

impl Int8Inputs {
    pub(super) fn new(x: &[f32], weights: &PackedView) -> Self {
        let (bits, d_in) = (weights.scheme.bits(), weights.d_in);
        let group = weights.scheme.group();
        let per_word = 32 / bits.count();
        let (planes, words) = (per_word / 4, group / per_word);
        let blocks = d_in.div_ceil(LANES * per_word);
        let rows = x.len() / d_in;
        let factor = match weights.scheme.symmetric() {
            true => -i32::from(bits.middle()),
            false => 1,
        };
        let mut inputs = Self {
            blocks,
            values: vec![Lanes([0; LANES]); rows * blocks * planes],
            scales: vec![Lanes([0.0; LANES]); rows * blocks],
            sums: vec![Lanes([0; LANES]); rows * blocks],
        };
        let mut integers = [0_i8; 128];
        let integers = &mut integers[..group];
        for (from, tile) in tiles(rows) {
            for r in 0..tile {
                let row = &x[(from + r) * d_in..][..d_in];
                for (n, x) in row.chunks_exact(group).enumerate() {
                    let scale = to_integers(x, integers);
                    for (w, u) in integers.chunks_exact(per_word).enumerate() {
                        let (b, lane) = ((n * words + w) / LANES, (n * words + w) % LANES);
                        let line = from * blocks + b * tile + r;
                        inputs.scales[line].0[lane] = scale;
                        let sum: i32 = u.iter().map(|&u| i32::from(u)).sum();
                        inputs.sums[line].0[lane] = factor * sum;
                        for plane in 0..planes {
                            let line = (from * blocks + b * tile) * planes + plane * tile + r;
                            let byte = |i: usize| u[i * planes + plane] as u8;
                            let bytes = [0, 1, 2, 3].map(byte);
                            inputs.values[line].0[lane] = u32::from_le_bytes(bytes);
                        }
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
