//! Rows of a cache that are kept, moved or copied, as the hypotheses of a beam search that go on.

#[cfg(feature = "flex")]
mod flex;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, TensorMetadata};
use burn::tensor::{Slice, Tensor, TensorData};

use super::rows::leading;
use crate::route::{composed, operation, routed};

/// These rows of a cache, in this order; a row that is named more than once is copied.
///
/// Where as many rows are kept as there are, only those that move are copied, in the memory of `cache` if nothing
/// else refers to it.
///
/// Forward only: nothing is recorded for a backward pass, and on an autodiff device the output is a constant.
///
/// # Shapes
///
/// - cache: `[batch, n_kv_heads, capacity, head_dim]` of any float type
/// - rows: indices of the batch
/// - filled: the number of slots to keep, at most the capacity; what is in those beyond is not specified
/// - output: `[rows, n_kv_heads, capacity, head_dim]`
///
/// # Panics
///
/// If a row is not one of the batch, or `filled` exceeds the capacity.
pub fn kept_rows(cache: Tensor<4>, rows: &[usize], filled: usize) -> Tensor<4> {
    let [batch, _, capacity, _] = cache.dims();
    assert!(
        rows.iter().all(|row| *row < batch) && filled <= capacity,
        "kept_rows: {filled} slots of the rows {rows:?} of {:?}",
        cache.dims()
    );
    if rows.iter().copied().eq(0..batch) {
        return cache;
    }
    let cache = cache.into_dispatch();
    Tensor::from_dispatch(routed!(KeptRows::kept_rows(cache, rows, filled), else forward))
}

operation! {
    /// Rows of a cache in a backend's own tensors.
    pub trait KeptRows: Backend {
        fn kept_rows(cache: FloatTensor<Self>, rows: &[usize], filled: usize) -> FloatTensor<Self> {
            forward::<Self>(cache, rows, filled)
        }
    }
}

composed!(KeptRows: NdArray, Cube);

impl<B: KeptRows, C: CheckpointStrategy> KeptRows for Autodiff<B, C> {
    /// Nothing is recorded: the output is a constant.
    fn kept_rows(cache: FloatTensor<Self>, rows: &[usize], filled: usize) -> FloatTensor<Self> {
        Self::from_inner(B::kept_rows(cache.into_primitive(), rows, filled))
    }
}

/// The rows that move, where as many are kept as there are: each with the row that takes its place.
fn moves(rows: &[usize]) -> impl Iterator<Item = (usize, usize)> {
    let moves = rows.iter().copied().enumerate();
    moves.filter(|(to, from)| to != from)
}

pub(super) fn forward<B: Backend>(
    cache: FloatTensor<B>,
    rows: &[usize],
    filled: usize,
) -> FloatTensor<B> {
    let select = |cache: FloatTensor<B>, rows: &[usize]| {
        let indices: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
        let indices = TensorData::new(indices, [rows.len()]);
        let indices = B::int_from_data(indices, &cache.device());
        B::float_select(cache, 0, indices)
    };
    if rows.len() != cache.shape()[0] {
        return select(cache, rows);
    }
    let slots = |row| [leading(row, row + 1), Slice::full(), leading(0, filled)];
    let (to, from): (Vec<usize>, Vec<usize>) = moves(rows).unzip();
    let moved = select(cache.clone(), &from);
    to.into_iter().enumerate().fold(cache, |cache, (i, to)| {
        let row = B::float_slice(moved.clone(), &slots(i));
        B::float_slice_assign(cache, &slots(to), row)
    })
}
