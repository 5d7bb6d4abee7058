//! Training of ODE-transformer language models.
//!
//! [`RunConfig`] is the TOML file; [`train`] takes it from text to a model directory. Everything
//! that a run leaves behind lies in its [`RunDirectory`]: the resolved configuration, one JSON
//! object for each logged step, a picture of the curves, checkpoints, and the model.
//!
//! A run is a pure function of its configuration, its data and the number of threads: batches and
//! initial weights follow from the seed and the step alone.

mod checkpoint;
mod config;
mod curve;
mod error;
mod evaluate;
mod gradients;
mod memory;
mod metrics;
mod optimizer;
mod progress;
mod run_directory;
mod schedule;
mod trainer;

pub use config::{ModelSection, RunConfig, Stage, TrainSection};
pub use error::TrainError;
pub use evaluate::{Baselines, Evaluation, Validation};
pub use memory::keep_freed_memory;
pub use metrics::Record;
pub use progress::DataProgress;
pub use run_directory::RunDirectory;
pub use schedule::{LearningRate, ScheduleKind};
pub use trainer::{RunOptions, Summary, train};
