//! Smaller weights: quantised matrices, pruning, and products from packed weights.
//!
//! - [`Scheme`]: bits, groups, zero points. [`PackedMatrix`] and [`PackedView`]: a quantised matrix.
//! - [`round`] and [`Gptq`] make one, the latter from the [`Hessian`] of a projection's inputs.
//! - [`StoredMatrix`] and [`QuantizationConfig`]: the format `pack-quantized` of compressed-tensors.
//! - [`kernel`]: products of few rows, and rows as ordinary numbers.
//! - [`prune`]: zeros by magnitude, Wanda and SparseGPT; the influence of layers.
//!
//! Weights are row-major, `[d_out, d_in]`. Everything is a pure function over slices; the README shows how a module
//! and a command use them.

mod cholesky;
mod compensate;
mod config;
mod error;
mod gptq;
mod hessian;
pub mod kernel;
mod matrix;
mod packed;
pub mod prune;
#[cfg(test)]
mod random;
mod round;
mod scheme;
mod stored;

pub use config::{FORMAT, QuantizationConfig};
pub use error::CompressError;
pub use gptq::{Gptq, Order};
pub use hessian::Hessian;
pub use packed::{PackedMatrix, PackedView};
pub use round::{Range, round};
pub use scheme::{Activations, Bits, Grid, Scheme};
pub use stored::{ScaleType, StoredMatrix, StoredTensor};

/// The example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
