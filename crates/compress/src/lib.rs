//! Smaller weights.

mod config;
mod error;
mod packed;
mod round;
mod scheme;
mod stored;

pub use config::{FORMAT, QuantizationConfig};
pub use error::CompressError;
pub use packed::{PackedMatrix, PackedView};
pub use round::{Range, round};
pub use scheme::{Bits, Grid, Scheme};
pub use stored::{ScaleType, StoredMatrix, StoredTensor};
