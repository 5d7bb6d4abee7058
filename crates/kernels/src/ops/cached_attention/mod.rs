//! Attention of new tokens to a cache of keys and values that already contains theirs.
//!
//! The rows of a batch may differ in their number of cached tokens and of new tokens. Padding is neither in
//! the cache nor attended to; its output is zero.

#[cfg(feature = "flex")]
mod flex;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, TensorMetadata};
use burn::tensor::{Shape, Slice, Tensor};

use super::attention::{future, grouped, scores};
use super::rows::leading;
use crate::precision::rounded;
use crate::route::{composed, operation, routed};

/// The tokens of one row of a batch in a pass: the `count` columns of `seq` starting at `from` are tokens,
/// and `cached` tokens came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheRow {
    /// The first column that is not padding.
    pub from: usize,
    /// The number of new tokens of the row; may be 0.
    pub count: usize,
    /// The number of tokens in the row's cache before the pass.
    pub cached: usize,
}

impl CacheRow {
    /// Tokens in the row's cache after the pass.
    pub fn total(&self) -> usize {
        self.cached + self.count
    }
}

/// `softmax(scale q k^T + mask) v`, where a row's new token i attends to the cached tokens and to the new
/// tokens up to itself.
///
/// Forward only: nothing is recorded for a backward pass, and on an autodiff device the output is a constant.
///
/// # Shapes
///
/// - q and output: `[batch, n_heads, seq, head_dim]` of any float type; the output of padding is zero
/// - keys and values: `[batch, n_kv_heads, capacity, head_dim]` of any float type, with each row's new tokens
///   at `cached..cached + count`; entries beyond are not read
/// - rows: one per row of the batch
///
/// # Panics
///
/// If the shapes do not match, or a row exceeds `seq` or the capacity.
pub fn cached_attention(
    q: Tensor<4>,
    keys: Tensor<4>,
    values: Tensor<4>,
    rows: &[CacheRow],
    scale: f64,
) -> Tensor<4> {
    let [batch, n_heads, seq, head_dim] = q.dims();
    let [_, n_kv_heads, capacity, _] = keys.dims();
    assert!(
        keys.dims() == [batch, n_kv_heads, capacity, head_dim]
            && values.dims() == keys.dims()
            && n_kv_heads > 0
            && n_heads.is_multiple_of(n_kv_heads)
            && rows.len() == batch,
        "cached_attention: q {:?}, keys {:?}, values {:?} and {} rows do not match",
        q.dims(),
        keys.dims(),
        values.dims(),
        rows.len()
    );
    for row in rows {
        assert!(
            row.from + row.count <= seq && row.total() <= capacity,
            "cached_attention: {row:?} exceeds {seq} columns or a capacity of {capacity}"
        );
    }
    let (q, keys, values) = (
        q.into_dispatch(),
        keys.into_dispatch(),
        values.into_dispatch(),
    );
    Tensor::from_dispatch(routed!(
        CachedAttention::cached_attention(q, keys, values, rows, scale),
        else forward
    ))
}

operation! {
    /// Attention over a backend's own tensors.
    pub trait CachedAttention: Backend {
        fn cached_attention(
            q: FloatTensor<Self>,
            keys: FloatTensor<Self>,
            values: FloatTensor<Self>,
            rows: &[CacheRow],
            scale: f64,
        ) -> FloatTensor<Self> {
            forward::<Self>(q, keys, values, rows, scale)
        }
    }
}

composed!(CachedAttention: NdArray, Cube);

impl<B: CachedAttention, C: CheckpointStrategy> CachedAttention for Autodiff<B, C> {
    /// Nothing is recorded: the output is a constant.
    fn cached_attention(
        q: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        rows: &[CacheRow],
        scale: f64,
    ) -> FloatTensor<Self> {
        let [q, keys, values] = [q, keys, values].map(|x| x.into_primitive());
        Self::from_inner(B::cached_attention(q, keys, values, rows, scale))
    }
}

/// Rows with equal positions are computed together, others one at a time.
pub(super) fn forward<B: Backend>(
    q: FloatTensor<B>,
    keys: FloatTensor<B>,
    values: FloatTensor<B>,
    rows: &[CacheRow],
    scale: f64,
) -> FloatTensor<B> {
    let [_, n_heads, seq, head_dim] = q.shape().dims();
    let (device, dtype) = (q.device(), q.dtype());
    let alike = rows.windows(2).all(|pair| pair[0] == pair[1]);
    let step = if alike { rows.len().max(1) } else { 1 };
    let zeros = |columns: usize| {
        let shape = Shape::from(vec![step, n_heads, columns, head_dim]);
        B::float_zeros(shape, &device, dtype.into())
    };
    let parts = rows.iter().enumerate().step_by(step).map(|(b, row)| {
        let columns = |x: &FloatTensor<B>, from, to| {
            let range = [leading(b, b + step), Slice::full(), leading(from, to)];
            B::float_slice(x.clone(), &range)
        };
        let end = row.from + row.count;
        let seen = |cache| rounded::<B>(columns(cache, 0, row.total()), dtype);
        let mut parts = Vec::new();
        if row.from > 0 {
            parts.push(zeros(row.from));
        }
        if row.count > 0 {
            let new = columns(&q, row.from, end);
            parts.push(attend::<B>(new, seen(&keys), seen(&values), row, scale));
        }
        if end < seq {
            parts.push(zeros(seq - end));
        }
        joined::<B>(parts, 2)
    });
    joined::<B>(parts.collect(), 0)
}

fn joined<B: Backend>(mut parts: Vec<FloatTensor<B>>, axis: usize) -> FloatTensor<B> {
    match parts.len() {
        1 => parts.swap_remove(0),
        _ => B::float_cat(parts, axis),
    }
}

fn attend<B: Backend>(
    q: FloatTensor<B>,
    keys: FloatTensor<B>,
    values: FloatTensor<B>,
    row: &CacheRow,
    scale: f64,
) -> FloatTensor<B> {
    let (shape, dtype, n_kv_heads) = (q.shape(), q.dtype(), keys.shape()[1]);
    let hidden = future::<B>(row.cached, shape[2], keys.shape()[2], &q.device());
    let weights = B::softmax(scores::<B>(q, keys, Some(hidden), scale), 3);
    let weights = grouped::<B>(rounded::<B>(weights, dtype), n_kv_heads);
    B::float_reshape(B::float_matmul(weights, values), shape)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::backend::Dispatch;
    use burn::tensor::{DType, Device, Distribution, Tolerance};

    use super::*;

    fn check(heads: [usize; 2], seq: usize, head_dim: usize, rows: &[CacheRow], dtype: DType) {
        let device = Device::default();
        device.seed(11);
        let random = |heads, columns| {
            let shape = [rows.len(), heads, columns, head_dim];
            Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), &device)
        };
        let capacity = rows.iter().map(CacheRow::total).max().unwrap_or(0) + 3;
        let q = random(heads[0], seq);
        // Entries beyond the tokens must not be read.
        let spoilt = |x: Tensor<4>| {
            rows.iter().enumerate().fold(x, |x, (b, row)| {
                let free = [b..b + 1, 0..heads[1], row.total()..capacity, 0..head_dim];
                let shape = [1, heads[1], capacity - row.total(), head_dim];
                x.slice_assign(free, Tensor::full(shape, f32::NAN, &device))
            })
        };
        let keys = spoilt(random(heads[1], capacity)).cast(dtype);
        let values = spoilt(random(heads[1], capacity)).cast(dtype);
        let found = cached_attention(q.clone(), keys.clone(), values.clone(), rows, 0.3);
        let [q, keys, values] = [q, keys, values].map(Tensor::into_dispatch);
        let expected = forward::<Dispatch>(q, keys, values, rows, 0.3);
        let expected = Tensor::<4>::from_dispatch(expected);
        found
            .into_data()
            .assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(2e-5));
    }

    fn row(from: usize, count: usize, cached: usize) -> CacheRow {
        CacheRow {
            from,
            count,
            cached,
        }
    }

    #[test]
    fn kernel_and_composed_body_agree() {
        for heads in [[4, 4], [4, 2], [12, 1]] {
            for head_dim in [2, 8, 40] {
                // One token, at equal and at different positions; several with padding on both sides; many.
                let f32 = DType::F32;
                check(heads, 1, head_dim, &[row(0, 1, 0)], f32);
                check(heads, 1, head_dim, &[row(0, 1, 1300), row(0, 1, 5)], f32);
                check(heads, 1, head_dim, &[row(0, 1, 9), row(0, 0, 4)], f32);
                check(
                    heads,
                    5,
                    head_dim,
                    &[row(0, 3, 7), row(2, 3, 0), row(0, 5, 200)],
                    f32,
                );
                check(
                    heads,
                    150,
                    head_dim,
                    &[row(0, 150, 100), row(30, 120, 0)],
                    f32,
                );
                for half in [DType::F16, DType::BF16] {
                    check(heads, 1, head_dim, &[row(0, 1, 700)], half);
                    check(heads, 70, head_dim, &[row(1, 69, 130)], half);
                }
            }
        }
    }

    #[test]
    fn with_an_empty_cache_equals_causal_attention() {
        let device = Device::default();
        let random = |heads| {
            Tensor::<4>::random([2, heads, 70, 16], Distribution::Normal(0.0, 1.0), &device)
        };
        let (q, k, v) = (random(6), random(2), random(2));
        let rows = [row(0, 70, 0); 2];
        let found = cached_attention(q.clone(), k.clone(), v.clone(), &rows, 0.25);
        let expected = crate::causal_attention(q, k, v, 0.25);
        found
            .into_data()
            .assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-5));
    }

    #[test]
    #[should_panic = "exceeds 1 columns or a capacity of 4"]
    fn rows_beyond_the_cache_are_refused() {
        let x = Tensor::<4>::zeros([1, 1, 4, 2], &Device::default());
        cached_attention(
            x.clone().narrow(2, 0, 1),
            x.clone(),
            x,
            &[row(0, 1, 4)],
            1.0,
        );
    }
}
