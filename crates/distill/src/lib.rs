//! IIAD, iteration-influence-aware distillation: what each correction of an iterated model
//! contributes, and which of them to keep.
//!
//! [`InfluenceMeter`] measures `I[n,i]`, how far the i-th correction of layer n turns its output.
//! [`by_threshold`] and [`by_budget`] turn the table into an
//! [`IterationSchedule`](iiet_ode::IterationSchedule), how many corrections each layer keeps.
//!
//! Liu et al., *IIET: Efficient Numerical Transformer via Implicit Iterative Euler Method*,
//! EMNLP 2025 (arXiv 2509.22463), section 4.

mod error;
mod heat_map;
mod influence;
mod schedule;

pub use error::DistillError;
pub use heat_map::draw_heat_map;
pub use influence::{Influence, InfluenceMeter};
pub use schedule::{by_budget, by_threshold};
