//! The KV cache of a decoder, one for each evaluation of each layer.
//!
//! Every evaluation of a layer attends to the keys and values that the same evaluation produced at
//! earlier positions. A solver that evaluates a layer four times therefore needs four caches per
//! layer; with them decoding equals the full pass.

use burn::tensor::Tensor;
use iiet_kernels::{CacheRow, Precision, cached_attention, kept_rows};

use crate::BlockCache;

/// The minimum number of slots by which a cache grows.
const BLOCK: usize = 64;

/// The keys and values of one evaluation of one layer, for a batch.
#[derive(Debug, Clone)]
pub struct KeyValueCache {
    stored: Precision,
    /// `[batch, n_kv_heads, capacity, head_dim]`; `None` while empty.
    keys_and_values: Option<[Tensor<4>; 2]>,
}

impl KeyValueCache {
    /// Appends the keys and values of new tokens and attends to all tokens in the cache.
    ///
    /// # Shapes
    ///
    /// - q and output: `[batch, n_heads, seq, head_dim]`
    /// - k and v: `[batch, n_kv_heads, seq, head_dim]`
    pub(crate) fn attend(
        &mut self,
        q: Tensor<4>,
        k: Tensor<4>,
        v: Tensor<4>,
        rows: &[CacheRow],
        limit: usize,
        scale: f64,
    ) -> Tensor<4> {
        let [keys, values] = self.stored(k, v, rows, limit);
        let mixed = cached_attention(q, keys.clone(), values.clone(), rows, scale);
        self.keys_and_values = Some([keys, values]);
        mixed
    }

    /// Adds new tokens' keys and values.
    ///
    /// # Shapes
    ///
    /// - k and v: `[batch, n_kv_heads, seq, head_dim]`
    pub(crate) fn store(&mut self, k: Tensor<4>, v: Tensor<4>, rows: &[CacheRow], limit: usize) {
        self.keys_and_values = Some(self.stored(k, v, rows, limit));
    }

    /// The tensors, taken out, with the new tokens in them.
    fn stored(
        &mut self,
        k: Tensor<4>,
        v: Tensor<4>,
        rows: &[CacheRow],
        limit: usize,
    ) -> [Tensor<4>; 2] {
        let [keys, values] = self.with_room_for(&k, rows, limit);
        [store(keys, k, rows), store(values, v, rows)]
    }

    /// Takes the tensors out, so that they are written in place, with capacity for the new tokens;
    /// a row never has more than `limit`.
    ///
    /// The capacity at least doubles, so the number of times a token is copied is bounded on
    /// average.
    fn with_room_for(
        &mut self,
        like: &Tensor<4>,
        rows: &[CacheRow],
        limit: usize,
    ) -> [Tensor<4>; 2] {
        let needed = rows.iter().map(CacheRow::total).max().unwrap_or(0);
        let capacity = self.capacity();
        let [batch, n_kv_heads, _, head_dim] = like.dims();
        let fresh = |slots: usize| {
            let options = (&like.device(), self.stored.dtype());
            Tensor::<4>::zeros([batch, n_kv_heads, slots, head_dim], options)
        };
        let larger = needed
            .max(2 * capacity)
            .next_multiple_of(BLOCK)
            .min(limit.max(needed));
        match self.keys_and_values.take() {
            Some(tensors) if needed <= capacity => tensors,
            Some(tensors) => tensors.map(|old| resized(old, larger)),
            None => [fresh(larger), fresh(larger)],
        }
    }
}

impl BlockCache for KeyValueCache {
    fn new(stored: Precision) -> Self {
        let keys_and_values = None;
        Self {
            stored,
            keys_and_values,
        }
    }

    fn keep_rows(&mut self, rows: &[usize], tokens: usize) {
        if let Some(tensors) = self.keys_and_values.take() {
            let kept = || tensors.map(|x| kept_rows(x, rows, tokens));
            self.keys_and_values = (!rows.is_empty()).then(kept);
        }
    }

    fn put_row(&mut self, row: usize, other: Self) {
        let (Some(tensors), Some(others)) = (self.keys_and_values.take(), other.keys_and_values)
        else {
            return;
        };
        let [batch, n_kv_heads, capacity, head_dim] = tensors[0].dims();
        let slots = others[0].dims()[2].max(capacity);
        let [keys, values] = tensors.map(|x| resized(x, slots));
        let put = |x: Tensor<4>, other: Tensor<4>| {
            let taken = 0..other.dims()[2];
            x.slice_assign([row..row + 1, 0..n_kv_heads, taken, 0..head_dim], other)
        };
        debug_assert!(row < batch);
        let [other_keys, other_values] = others;
        self.keys_and_values = Some([put(keys, other_keys), put(values, other_values)]);
    }

    fn append(&mut self, other: Self) {
        self.keys_and_values = match (self.keys_and_values.take(), other.keys_and_values) {
            (Some(own), Some(others)) => {
                let slots = own[0].dims()[2].max(others[0].dims()[2]);
                let [keys, values] = own.map(|x| resized(x, slots));
                let [other_keys, other_values] = others.map(|x| resized(x, slots));
                let join = |own, other| Tensor::cat(vec![own, other], 0);
                Some([join(keys, other_keys), join(values, other_values)])
            }
            (own, others) => own.or(others),
        };
    }

    fn capacity(&self) -> usize {
        match &self.keys_and_values {
            Some([keys, _]) => keys.dims()[2],
            None => 0,
        }
    }
}

/// The same slots followed by free ones, `slots` in total.
fn resized(old: Tensor<4>, slots: usize) -> Tensor<4> {
    let [batch, n_kv_heads, capacity, head_dim] = old.dims();
    if slots == capacity {
        return old;
    }
    let all = [0..batch, 0..n_kv_heads, 0..capacity, 0..head_dim];
    let shape = [batch, n_kv_heads, slots, head_dim];
    Tensor::zeros(shape, (&old.device(), old.dtype())).slice_assign(all, old)
}

/// Writes each row's new tokens after its existing ones.
fn store(cache: Tensor<4>, new: Tensor<4>, rows: &[CacheRow]) -> Tensor<4> {
    let [_, n_kv_heads, _, head_dim] = cache.dims();
    let new = new.cast(cache.dtype());
    // If all rows have equal positions, they are written at once.
    let alike = rows.windows(2).all(|pair| pair[0] == pair[1]);
    let step = if alike { rows.len().max(1) } else { 1 };
    let (heads, dims) = (0..n_kv_heads, 0..head_dim);
    let rows = rows.iter().enumerate().step_by(step);
    rows.filter(|(_, row)| row.count > 0)
        .fold(cache, |cache, (b, row)| {
            let batch = b..b + step;
            let columns = row.from..row.from + row.count;
            let part = [batch.clone(), heads.clone(), columns, dims.clone()];
            let slots = [batch, heads.clone(), row.cached..row.total(), dims.clone()];
            cache.slice_assign(slots, new.clone().slice(part))
        })
}
