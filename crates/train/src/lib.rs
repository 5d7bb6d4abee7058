//! Training of ODE-transformer language models.
//!
//! [`RunConfig`] is the TOML file; [`train`] takes it from text to a model directory. Everything
//! that a run leaves behind lies in its [`RunDirectory`]: the resolved configuration, one JSON
//! object for each logged step, a picture of the curves, checkpoints, and the model. What is minimised
//! is a [`TrainingObjective`], [`NextToken`] unless a teacher comes in.
//!
//! A run is a pure function of its configuration, its data and the numbers of threads and devices:
//! batches and initial weights follow from the seed and the step alone. [`Devices`] may be several.

mod checkpoint;
mod config;
mod curve;
mod devices;
mod error;
mod evaluate;
mod gradients;
mod loss_scale;
mod memory;
mod metrics;
mod objective;
mod optimizer;
mod peak;
mod progress;
mod run_directory;
mod schedule;
mod trainer;

pub use checkpoint::Difference;
pub use config::{
    DistillSection, ModelSection, Recompute, RunConfig, Stage, TrainSection, override_solver,
};
#[cfg(feature = "cuda")]
pub use devices::Collective;
pub use devices::{AllReduce, Devices};
pub use error::TrainError;
pub use evaluate::{Baselines, BatchTensors, Evaluation, Validation};
pub use gradients::AccumulatedGradients;
pub use memory::keep_freed_memory;
pub use metrics::Record;
pub use objective::{BatchObjective, CROSS_ENTROPY, Footprint, NextToken, TrainingObjective};
pub use optimizer::ModelAdamW;
pub use peak::matrix_product_peak;
pub use progress::DataProgress;
pub use run_directory::RunDirectory;
pub use schedule::{LearningRate, ScheduleKind};
pub use trainer::{RunOptions, Summary, train};
