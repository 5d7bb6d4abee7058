//! Models made smaller after training: matrices of 8 and 4 bits, and zeros.
//!
//! The mathematics is that of `iiet-compress`, a matrix at a time; here it meets a model. Rounding and pruning
//! by magnitude look at weights alone. The other methods are calibrated layer by layer ([`calibrate`]): a weight
//! of an iterated layer makes 1 + r products per token, and all of their inputs count.

mod calibrate;
mod layers;
mod prune;
mod quantise;

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{Tensor, TensorData};
use iiet_compress::CompressError;

pub use self::prune::{PruneMethod, prune_by_magnitude};
pub use self::quantise::{round_to_bits, treat_inputs, widen};
use crate::ModelError;
use crate::checkpoint::{transposed, values_of};
use crate::names::with_value;

/// Says which matrix an error is of.
fn of_matrix(name: &str) -> impl FnOnce(CompressError) -> ModelError {
    let name = name.to_owned();
    move |source| ModelError::Compress {
        name,
        source: Box::new(source),
    }
}

/// A matrix in host memory, and its shape, `[d_out, d_in]`.
fn rows_of(linear: &Linear) -> (Vec<f32>, [usize; 2]) {
    let weight = linear.weight.val();
    let [d_in, d_out] = weight.dims();
    (transposed(&values_of(&weight), d_in, d_out), [d_out, d_in])
}

/// Replaces the matrix by another one of its shape, `[d_out, d_in]`.
fn set_rows(linear: &mut Linear, rows: &[f32]) {
    let [d_in, d_out] = linear.weight.lazy_shape().dims();
    let device = linear.weight.val().device();
    let data = TensorData::new::<f32, _>(transposed(rows, d_out, d_in), [d_in, d_out]);
    let weight: Param<Tensor<2>> = linear.weight.clone();
    linear.weight = with_value(weight, data, &device);
}
