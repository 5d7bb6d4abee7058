//! Events of a run, for observers.

use std::path::Path;

use crate::{Baselines, Difference, Record, RunDirectory};

/// Receives the events of a run; `()` ignores them.
///
/// An observer cannot fail: problems of displaying events must not end the run.
pub trait Observer {
    /// Called with each event.
    fn on(&mut self, event: &Event<'_>);
}

impl Observer for () {
    fn on(&mut self, _: &Event<'_>) {}
}

/// The events of a run, in this order except for [`Sample`](Self::Sample) and
/// [`Checkpoint`](Self::Checkpoint), which occur at intervals.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A checkpoint cannot be used to resume from; an older one is tried.
    PassedOver {
        /// Its path and the reason.
        reason: &'a str,
    },
    /// The run is resumed from step 0, because it was stopped before its first checkpoint.
    StartingOver {
        /// The run directory.
        run: &'a RunDirectory,
    },
    /// The run is resumed from a checkpoint.
    Resuming {
        /// The checkpoint.
        checkpoint: &'a Path,
        /// The step after which it was written.
        step: u64,
        /// Keys of the configuration that have changed.
        changed: &'a [Difference],
    },
    /// `metrics.jsonl` contained lines that are not records. The file was renamed; its valid records are in
    /// the new file.
    MetricsKeptAside {
        /// The renamed file.
        kept: &'a Path,
        /// The reason.
        reason: &'a str,
    },
    /// The run directory has been written, and the first step starts.
    Started(&'a Started<'a>),
    /// A new stage starts with the update after a step.
    Stage {
        /// Number of completed steps.
        step: u64,
        /// The solver from here on.
        solver: &'a str,
    },
    /// A step is completed.
    Step {
        /// Number of completed steps.
        step: u64,
    },
    /// A step was logged.
    Logged {
        /// All records of the run, ending with the new one.
        records: &'a [Record],
    },
    /// A sample: the model's continuation of `train.sample_prompt`.
    Sample {
        /// Number of completed steps.
        step: u64,
        /// Prompt and continuation.
        text: &'a str,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// Number of completed steps.
        step: u64,
        /// Its path.
        path: &'a Path,
    },
    /// The last step is completed, and all files are written.
    Ended {
        /// All records of the run.
        records: &'a [Record],
    },
}

/// Information about a run at its start.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Started<'a> {
    /// The run directory.
    pub run: &'a RunDirectory,
    /// The solver of the last stage; of both sides, if there are two.
    pub solver: String,
    /// Number of layers of all sides.
    pub layers: usize,
    /// Number of parameters.
    pub parameters: u64,
    /// Evaluations of blocks per token, summed over layers.
    pub evaluations: usize,
    /// Number of steps completed before.
    pub step: u64,
    /// Total number of steps.
    pub steps: u64,
    /// Tokens per step, including padding.
    pub tokens_per_step: u64,
    /// The training data.
    pub sources: Vec<SourceUse>,
    /// Number of pairs that are not trained on, because a side is longer than the model's context.
    pub left_out: u64,
    /// Peak FLOP/s for computing utilisation, summed over devices.
    pub peak: Option<f64>,
    /// Baselines for the validation loss.
    pub baselines: Baselines,
}

/// The use of a source in a run.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SourceUse {
    /// Its name.
    pub name: String,
    /// Its share of all rows.
    pub share: f64,
    /// What it is of a text; none for a task, whose examples never come again.
    pub text: Option<TextUse>,
}

/// How often a text is seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TextUse {
    /// Passes in the whole run.
    pub epochs: f64,
    /// Number of its training tokens.
    pub tokens: u64,
}
