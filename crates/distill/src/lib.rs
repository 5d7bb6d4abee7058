//! IIAD, iteration-influence-aware distillation: what each correction of an iterated model
//! contributes, which of them to keep, and how to make good for the others.
//!
//! [`InfluenceMeter`] measures `I[n,i]`, how far the i-th correction of layer n turns its output;
//! [`calibrate`] does so on a corpus.
//! [`by_threshold`] and [`by_budget`] turn the table into an
//! [`IterationSchedule`](iiet_ode::IterationSchedule), how many corrections each layer keeps.
//! [`Distillation`] is the loss under which the student, the teacher with that schedule, goes on
//! training: an objective for [`iiet_train::train`].
//!
//! Liu et al., *IIET: Efficient Numerical Transformer via Implicit Iterative Euler Method*,
//! EMNLP 2025 (arXiv 2509.22463), section 4.

mod calibration;
mod distillation;
mod error;
mod influence;
mod schedule;
mod section;

pub use calibration::calibrate;
pub use distillation::{Distillation, objective_of};
pub use error::DistillError;
pub use influence::{Influence, InfluenceMeter, corrections};
pub use schedule::{by_budget, by_hand, by_threshold, check_budget, check_threshold};
pub use section::{DistillSection, load_student};

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
