//! Which keys a query attends to.

use std::sync::Arc;

use burn::backend::tensor::{BoolTensor, IntTensor};
use burn::backend::{Backend, get_device_settings};
use burn::tensor::{Shape, TensorData};

/// Which keys a query attends to.
///
/// ```
/// use iiet_kernels::Visibility;
///
/// // Two sources of five tokens, of which the second has two tokens of padding at its end.
/// let padded = Visibility::keys([5, 3]);
/// assert_ne!(padded, Visibility::Causal);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visibility {
    /// Query i attends to the keys 0 to i: there are as many keys as queries.
    Causal,
    /// Every query of row b of the batch attends to the first `n[b]` keys; the others are padding.
    /// Queries and keys may differ in number.
    Keys(Arc<[usize]>),
}

impl Visibility {
    /// [`Keys`](Self::Keys), with the number of visible keys of each row of the batch.
    pub fn keys(visible: impl Into<Arc<[usize]>>) -> Self {
        Self::Keys(visible.into())
    }

    /// Why so many rows, queries and keys cannot be attended to, if so.
    pub(super) fn mismatch(&self, batch: usize, queries: usize, keys: usize) -> Option<String> {
        match self {
            Self::Causal if queries != keys => Some(format!("{queries} queries have {keys} keys")),
            Self::Keys(visible) if visible.len() != batch => Some(format!(
                "{} numbers of keys are given for {batch} rows",
                visible.len()
            )),
            Self::Keys(visible) => {
                let wrong = visible.iter().position(|n| !(1..=keys).contains(n))?;
                let n = visible[wrong];
                Some(format!("{n} of {keys} keys are visible in row {wrong}"))
            }
            Self::Causal => None,
        }
    }

    /// Where a block of queries in row b, the last of which is `last`, sees no more keys.
    #[cfg(feature = "flex")]
    pub(super) fn end(&self, b: usize, last: usize) -> usize {
        match self {
            Self::Causal => last + 1,
            Self::Keys(visible) => visible[b],
        }
    }

    /// How many of the queries from `first` on do not see a key that is not beyond [`end`](Self::end): the first
    /// ones, if any.
    #[cfg(feature = "flex")]
    pub(super) fn hides(&self, key: usize, first: usize) -> usize {
        match self {
            Self::Causal => key.saturating_sub(first),
            Self::Keys(_) => 0,
        }
    }

    /// True where a query does not see a key, in a shape that broadcasts to `[batch, n_heads,
    /// queries, keys]`; `None` if every query sees every key.
    pub(super) fn hidden<B: Backend>(
        &self,
        queries: usize,
        keys: usize,
        device: &B::Device,
    ) -> Option<BoolTensor<B>> {
        match self {
            Self::Causal => Some(future::<B>(0, queries, keys, device)),
            Self::Keys(visible) if visible.iter().all(|n| *n == keys) => None,
            Self::Keys(visible) => {
                let settings = get_device_settings::<B>(device);
                let numbers: Vec<i64> = visible.iter().map(|n| *n as i64).collect();
                let data = TensorData::new::<i64, _>(numbers, [visible.len(), 1, 1, 1]);
                let data = data.convert_dtype(settings.int_dtype.into());
                let visible = B::int_from_data(data, device);
                let position = row_of_keys::<B>(keys, device);
                let left = B::int_sub(visible, position);
                Some(B::int_lower_equal_elem(left, 0.into(), settings.bool_dtype))
            }
        }
    }
}

/// True where the key comes after the query, `[1, 1, queries, keys]`. The first query has index `first`
/// among the keys.
pub(in crate::ops) fn future<B: Backend>(
    first: usize,
    queries: usize,
    keys: usize,
    device: &B::Device,
) -> BoolTensor<B> {
    let settings = get_device_settings::<B>(device);
    let range = first as i64..(first + queries) as i64;
    let query = B::int_arange(range, device, settings.int_dtype);
    let query = B::int_reshape(query, Shape::from(vec![1, 1, queries, 1]));
    let key = row_of_keys::<B>(keys, device);
    B::int_lower_elem(B::int_sub(query, key), 0.into(), settings.bool_dtype)
}

/// The indices of the keys, `[1, 1, 1, keys]`.
fn row_of_keys<B: Backend>(keys: usize, device: &B::Device) -> IntTensor<B> {
    let settings = get_device_settings::<B>(device);
    let keys_in_order = B::int_arange(0..keys as i64, device, settings.int_dtype);
    B::int_reshape(keys_in_order, Shape::from(vec![1, 1, 1, keys]))
}
