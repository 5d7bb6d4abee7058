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

/// The first row and the number of rows of each tile.
pub(super) fn tiles(rows: usize) -> impl Iterator<Item = (usize, usize)> {
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
