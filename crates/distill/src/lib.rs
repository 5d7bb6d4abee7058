//! IIAD, iteration-influence-aware distillation: measures the contribution of each correction of an
//! iterated model, chooses which to keep, and trains the model without the others.
//!
//! [`InfluenceMeter`] measures `I[n,i]`, the change of layer n's output by its i-th correction;
//! [`calibrate`] does so on a corpus, [`calibrate_pairs`] on one side of an encoder-decoder.
//! [`by_threshold`] and [`by_budget`] turn the table into an [`IterationSchedule`](iiet_ode::IterationSchedule), the number of corrections of each layer.
//! [`Distillation`] is the loss of the student, which is the teacher with that schedule: an
//! objective for [`iiet_train::train`].
//!
//! Liu et al., *IIET: Efficient Numerical Transformer via Implicit Iterative Euler Method*,
//! EMNLP 2025 (arXiv 2509.22463), section 4.

mod calibration;
mod distillation;
mod error;
mod influence;
mod schedule;
mod section;

pub use calibration::{calibrate, calibrate_pairs, calibration_pairs, calibration_texts};
pub use distillation::{Distillation, objective_of};
pub use error::DistillError;
pub use influence::{Influence, InfluenceMeter, corrections};
pub use schedule::{by_budget, by_hand, by_threshold, check_budget, check_threshold};
pub use section::{DistillSection, load_student};

/// The examples in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
