//! Token ids as tensors.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Token ids as a tensor.
///
/// They are transferred as 64-bit integers, because not every backend accepts unsigned 32-bit ones; each
/// backend then converts to its own integer type.
///
/// # Shapes
///
/// - output: `shape`, filled row by row
///
/// # Panics
///
/// If the number of ids does not match the shape.
pub fn token_ids<const D: usize>(
    ids: &[u32],
    shape: [usize; D],
    device: &Device,
) -> Tensor<D, Int> {
    let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
    Tensor::from_data(TensorData::new::<i64, _>(ids, shape), device)
}
