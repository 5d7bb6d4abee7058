//! Smaller weights.

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
pub use scheme::{Bits, Grid, Scheme};
pub use stored::{ScaleType, StoredMatrix, StoredTensor};
