//! Pruning: which weights, and which layers, a model can do without.
//!
//! - [`magnitude`]: the weights nearest to zero
//! - [`wanda`]: those that contribute least to the outputs
//! - [`SparseGpt`]: those whose loss the others can best compensate for
//! - [`BlockInfluence`]: layers that hardly change their input
//!
//! The first three set weights of a matrix `[d_out, d_in]` to zero in place, in a [`Pattern`].

mod influence;
mod magnitude;
mod pattern;
mod sparse_gpt;
mod wanda;

pub use influence::BlockInfluence;
pub use magnitude::magnitude;
pub use pattern::{Pattern, zeros};
pub use sparse_gpt::SparseGpt;
pub use wanda::{InputNorms, wanda};
