//! Training of ODE transformers: language models and encoder-decoders.
//!
//! [`RunConfig`] is the TOML file; [`train`] turns its text into a model directory. All files of a run are in
//! its [`RunDirectory`]: the resolved configuration, one JSON object per logged step, checkpoints, and the
//! model. The loss is a [`TrainingObjective`], by default [`NextToken`]. This crate does not print or draw:
//! an [`Observer`] receives events.
//!
//! A run is a pure function of its configuration, its data and the numbers of threads and devices: batches
//! and initial weights depend only on the seed and the step. [`Devices`] may be several.

mod accuracy;
mod allocator;
mod checkpoint;
mod config;
mod devices;
mod error;
mod evaluate;
mod event;
mod gradients;
mod lengths;
mod memory;
mod metrics;
mod muon;
mod objective;
mod optimizer;
mod parallel;
mod peak;
mod plan;
mod ranks;
mod run_directory;
mod schedule;
mod step;
mod trained;
mod trainer;

pub use allocator::HugePages;
pub use checkpoint::Difference;
pub use config::{
    DrawnIterations, EncoderSection, ModelSection, Recompute, RunConfig, Shard, Stage,
    TrainSection, Transfer, override_solver,
};
#[cfg(feature = "cuda")]
pub use devices::Collective;
pub use devices::{AllReduce, Devices};
pub use error::TrainError;
pub use evaluate::{Baselines, BatchTensors, Evaluation, Validation};
pub use event::{Event, Observer, SourceUse, Started, TextUse};
pub use gradients::AccumulatedGradients;
pub use memory::{Phase, RunMemory, keep_freed_memory};
pub use metrics::Record;
pub use objective::{BatchObjective, CROSS_ENTROPY, Footprint, NextToken, TrainingObjective};
pub use optimizer::{ModelOptimizer, OptimizerKind};
pub use parallel::{Parallel, Sent};
pub use peak::matrix_product_peak;
pub use plan::{Machines, Plan, Remedy, Speed, StepTime, Workload};
#[cfg(feature = "mpi")]
pub use ranks::{Abort, Mpi};
pub use ranks::{Communicator, Pending, RankError, Ranks, Threads};
pub use run_directory::{ClaimedRun, RunDirectory};
pub use schedule::{LearningRate, ScheduleKind};
pub use step::{
    Figures, MicroBatches, NotTaken, Passes, StepDropout, StepError, Stepper, TrainState,
};
pub use trained::{StepCost, TrainedModel, Vocabulary};
pub use trainer::{RunOptions, Summary, train};

/// The examples in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
