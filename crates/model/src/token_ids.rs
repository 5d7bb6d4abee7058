//! Token ids on a device.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Token ids as a tensor.
///
/// They go there with 64 bits, for not every backend takes 32 unsigned ones; each keeps its own type.
///
/// # Shapes
///
/// - output: `shape`, filled row by row
///
/// # Panics
///
/// If the shape has place for another number of ids.
pub fn token_ids<const D: usize>(
    ids: &[u32],
    shape: [usize; D],
    device: &Device,
) -> Tensor<D, Int> {
    let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
    Tensor::from_data(TensorData::new::<i64, _>(ids, shape), device)
}
