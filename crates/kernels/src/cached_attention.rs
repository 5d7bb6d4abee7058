//! Attention of new tokens to a cache of keys and values that already holds theirs.
//!
//! The rows of a batch may differ in how much they have cached and in how many new tokens they
//! bring. A row's padding is neither in the cache nor looked at: its output is zero.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData, activation};

use crate::precision::in_f32;

/// Where one row of a batch stands in a pass: of its `seq` columns those from `from` on, `count` of
/// them, are tokens, and `cached` tokens came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheRow {
    /// The first column that is no padding.
    pub from: usize,
    /// How many tokens the row brings, perhaps none.
    pub count: usize,
    /// How many tokens the row's cache held before.
    pub cached: usize,
}

impl CacheRow {
    /// Tokens in the row's cache after the pass.
    pub fn total(&self) -> usize {
        self.cached + self.count
    }
}

/// `softmax(scale q k^T + mask) v`, where a row's new token i sees what was cached before and the
/// new tokens up to itself.
///
/// Forward only: nothing is recorded for a backward pass that a cache would spoil anyway.
///
/// # Shapes
///
/// - q and output: `[batch, n_heads, seq, head_dim]` of any float type; the output of padding is zero
/// - keys and values: `[batch, n_kv_heads, capacity, head_dim]` of any float type, with each row's
///   new tokens at `cached..cached + count`; what lies beyond is not read
/// - rows: one for each of the batch
///
/// # Panics
///
/// If the shapes do not fit together, or a row reaches beyond `seq` or the capacity.
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
        "cached_attention: q {:?}, keys {:?}, values {:?} and {} rows do not fit together",
        q.dims(),
        keys.dims(),
        values.dims(),
        rows.len()
    );
    for row in rows {
        assert!(
            row.from + row.count <= seq && row.total() <= capacity,
            "cached_attention: {row:?} reaches beyond {seq} columns or a capacity of {capacity}"
        );
    }
    #[cfg(feature = "flex")]
    {
        use burn::backend::Flex;
        let dtype = q.dtype();
        let operands = (
            in_f32(q.clone()).try_into_primitive::<Flex>(),
            keys.clone().try_into_primitive::<Flex>(),
            values.clone().try_into_primitive::<Flex>(),
        );
        if let (Ok(q), Ok(keys), Ok(values)) = operands
            && let Some(y) =
                crate::flex::cached_attention::forward(q, keys, values, rows, scale as f32)
        {
            let y: Tensor<4> = Tensor::from_primitive::<Flex>(y);
            return y.cast(dtype);
        }
    }
    composed(q, keys, values, rows, scale)
}

/// The same of Burn's primitives, for every other backend and type.
pub(crate) fn composed(
    q: Tensor<4>,
    keys: Tensor<4>,
    values: Tensor<4>,
    rows: &[CacheRow],
    scale: f64,
) -> Tensor<4> {
    let [_, _, seq, _] = q.dims();
    let (device, dtype) = (q.device(), q.dtype());
    let alike = rows.windows(2).all(|pair| pair[0] == pair[1]);
    let step = if alike { rows.len().max(1) } else { 1 };
    let parts: Vec<Tensor<4>> = rows
        .iter()
        .enumerate()
        .step_by(step)
        .map(|(b, row)| {
            let q = q.clone().narrow(0, b, step);
            let [_, n_heads, _, head_dim] = q.dims();
            if row.count == 0 {
                return Tensor::zeros([step, n_heads, seq, head_dim], (&device, dtype));
            }
            let seen = |cache: &Tensor<4>| {
                let cache = cache.clone().narrow(0, b, step);
                cache.narrow(2, 0, row.total()).cast(dtype)
            };
            let new = q.narrow(2, row.from, row.count);
            let y = attend(new, seen(&keys), seen(&values), row, scale);
            let padding = |columns: usize| {
                Tensor::<4>::zeros([step, n_heads, columns, head_dim], (&device, dtype))
            };
            let behind = seq - row.from - row.count;
            let parts = [(row.from, None), (0, Some(y)), (behind, None)];
            let parts = parts.into_iter().filter_map(|(columns, y)| match y {
                Some(y) => Some(y),
                None => (columns > 0).then(|| padding(columns)),
            });
            Tensor::cat(parts.collect(), 2)
        })
        .collect();
    Tensor::cat(parts, 0)
}

fn attend(
    q: Tensor<4>,
    keys: Tensor<4>,
    values: Tensor<4>,
    row: &CacheRow,
    scale: f64,
) -> Tensor<4> {
    let [batch, n_heads, count, head_dim] = q.dims();
    let [_, n_kv_heads, total, _] = keys.dims();
    // The query heads of a group become rows of one product with their shared keys.
    let grouped = [batch, n_kv_heads, n_heads / n_kv_heads * count, head_dim];
    let by_head = [batch, n_heads, count, total];
    let hidden = future(row, &q.device()).expand(by_head);
    let dtype = q.dtype();
    let scores = in_f32(q.reshape(grouped).matmul(keys.swap_dims(2, 3))) * scale;
    let scores = scores.reshape(by_head).mask_fill(hidden, f64::NEG_INFINITY);
    let weights = activation::softmax(scores, 3).cast(dtype).reshape([
        batch,
        n_kv_heads,
        n_heads / n_kv_heads * count,
        total,
    ]);
    weights
        .matmul(values)
        .reshape([batch, n_heads, count, head_dim])
}

/// True where the key comes after the query, `[1, 1, count, total]`.
fn future(row: &CacheRow, device: &Device) -> Tensor<4, Bool> {
    let line = |from: usize, n: usize| {
        let values: Vec<i64> = (from..from + n).map(|i| i as i64).collect();
        Tensor::<1, Int>::from_data(TensorData::new::<i64, _>(values, [n]), device)
    };
    let queries = line(row.cached, row.count).reshape([1, 1, row.count, 1]);
    let keys = line(0, row.total()).reshape([1, 1, 1, row.total()]);
    keys.expand([1, 1, row.count, row.total()])
        .greater(queries.expand([1, 1, row.count, row.total()]))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{DType, Distribution, Tolerance};

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
        // What lies beyond the tokens must not be read.
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
        let expected = composed(q, keys, values, rows, 0.3);
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
    fn the_kernel_computes_what_the_primitives_do() {
        for heads in [[4, 4], [4, 2], [12, 1]] {
            for head_dim in [2, 8, 40] {
                // One token, alike and not; several with padding on both sides; many.
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
    fn without_a_cache_it_is_causal_attention() {
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
    #[should_panic = "reaches beyond 1 columns or a capacity of 4"]
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
