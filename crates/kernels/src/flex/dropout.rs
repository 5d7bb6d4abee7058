//! Dropout's masks for the kernels: whole masks by all threads, and parts of a row for a tile.

use rayon::prelude::*;

use super::buffer::for_blocks;
use super::simd::vectorised;
use crate::dropout::DropoutMask;

/// Columns that are enough work for a thread; a multiple of 64.
const BLOCK: usize = 1 << 14;

/// [`DropoutMask::kept`].
pub(crate) fn kept(mask: &DropoutMask, rows: usize, columns: usize) -> Vec<f32> {
    let mut all = vec![0.0; rows * columns];
    let each = all.par_chunks_mut(columns.max(1)).enumerate();
    each.for_each(|(row, kept)| {
        for_blocks(kept, BLOCK, |i, kept| {
            fill(mask, row as u32, i * BLOCK, kept)
        });
    });
    all
}

vectorised! {
    /// [`DropoutMask::fill`].
    fn fill(mask: &DropoutMask, row: u32, first: usize, kept: &mut [f32]) {
        mask.fill(row, first, kept);
    }
}
