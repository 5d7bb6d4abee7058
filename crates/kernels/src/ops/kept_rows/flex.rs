//! Rows that move are copied in place, on all threads, and no more of them than is filled.

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, bf16, f16};
use rayon::prelude::*;

use super::{KeptRows, forward, moves};
use crate::flex::Primitive;
use crate::flex::buffer::is_own;
use crate::flex::halves::at_most_f32;

impl KeptRows for Flex {
    fn kept_rows(mut cache: Primitive, rows: &[usize], filled: usize) -> Primitive {
        let [batch, heads, capacity, head_dim] = cache.shape().dims();
        // A row that moves itself, and one that takes its place, would have to be copied aside first.
        let stays = |row: usize| rows[row] == row;
        let apart = rows.len() == batch && moves(rows).all(|(_, from)| stays(from));
        if !apart || !is_own(&cache) || !at_most_f32([&cache]) {
            return forward::<Self>(cache, rows, filled);
        }
        let (row, head) = (heads * capacity * head_dim, capacity * head_dim);
        let filled = filled * head_dim;
        if row > 0 {
            match cache.dtype() {
                DType::F32 => overwrite(cache.storage_mut::<f32>(), rows, [row, head, filled]),
                DType::F16 => overwrite(cache.storage_mut::<f16>(), rows, [row, head, filled]),
                _ => overwrite(cache.storage_mut::<bf16>(), rows, [row, head, filled]),
            }
        }
        cache
    }
}

/// Overwrites rows by others, which stay as they are: of each head the first `filled` entries.
fn overwrite<T: Copy + Send + Sync>(
    cache: &mut [T],
    rows: &[usize],
    [row, head, filled]: [usize; 3],
) {
    let (mut targets, mut sources) = (Vec::new(), Vec::new());
    for (to, values) in cache.chunks_mut(row).enumerate() {
        match rows[to] == to {
            true => sources.push(Some(&*values)),
            false => {
                targets.push((rows[to], values));
                sources.push(None);
            }
        }
    }
    targets.into_par_iter().for_each(|(from, to)| {
        let from = sources[from].expect("invariant: the source of a copy stays where it is");
        for (to, from) in to.chunks_mut(head).zip(from.chunks(head)) {
            to[..filled].copy_from_slice(&from[..filled]);
        }
    });
}
