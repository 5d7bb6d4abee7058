//! Sweeps over the settings of training runs.
//!
//! A [`Sweep`] is a grid of settings ([`Axis`]) times a number of seeds. Each combination is a
//! [`Trial`], a training run in a directory of its own. How a trial is run is decided by a
//! [`Launcher`]; `iiet sweep` starts `iiet train` as a child process, so that the failure of a trial is
//! a result ([`State::Failed`]) and does not end the sweep. All results are in `sweep.jsonl`
//! ([`TrialResult`]), from which [`Table`] and every picture are made.
//!
//! A sweep that was stopped, or killed, goes on where it stands: finished trials stay, and unfinished
//! ones are resumed from their checkpoints.

mod curve;
mod directory;
mod error;
mod estimate;
mod grid;
mod halving;
mod launch;
mod result;
mod shown;
mod sweep;
mod table;
mod trial;

pub use curve::{Curve, Point};
pub use directory::SweepDirectory;
pub use error::SweepError;
pub use estimate::Estimate;
pub use grid::{Axis, Settings};
pub use halving::{rungs, survivors};
pub use launch::{Ended, Job, Launcher, Process};
pub use result::{State, TrialResult, read_results};
pub use shown::{higher_is_better, short_names, shown};
pub use sweep::{Event, Observer, Outcome, Sweep, SweepOptions};
pub use table::{Row, Table};
pub use trial::Trial;

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
