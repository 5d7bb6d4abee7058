//! What a run tells while it goes on, for whoever shows it.

use std::path::Path;

use iiet_model::ModelConfig;

use crate::{Baselines, Difference, Record, RunDirectory};

/// Receives what happens in a run; `()` ignores it.
///
/// An observer cannot fail: what it shows is not what the run is for.
pub trait Observer {
    /// Something happened.
    fn on(&mut self, event: &Event<'_>);
}

impl Observer for () {
    fn on(&mut self, _: &Event<'_>) {}
}

/// What happens in a run, in this order but for [`Sample`](Self::Sample) and
/// [`Checkpoint`](Self::Checkpoint), which come when they are due.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A checkpoint cannot be used to resume from; an older one is looked for.
    PassedOver {
        /// Its path and what is wrong with it.
        reason: &'a str,
    },
    /// The run is resumed although it was stopped before its first checkpoint: from step 0.
    StartingOver {
        /// The run.
        run: &'a RunDirectory,
    },
    /// The run goes on from a checkpoint.
    Resuming {
        /// The checkpoint.
        checkpoint: &'a Path,
        /// The step that it stands after.
        step: u64,
        /// Keys of the configuration that are not what they were.
        changed: &'a [Difference],
    },
    /// `metrics.jsonl` held something that is not a record. The file is kept under another name; what
    /// could be read of it is in the new one.
    MetricsKeptAside {
        /// Where the old file is.
        kept: &'a Path,
        /// What is wrong with it.
        reason: &'a str,
    },
    /// The run directory is written, and the first step begins.
    Started(&'a Started<'a>),
    /// Another stage begins with the update after a step.
    Stage {
        /// Steps taken.
        step: u64,
        /// The model from here on.
        model: &'a ModelConfig,
    },
    /// A step was taken.
    Step {
        /// Steps taken.
        step: u64,
    },
    /// A step was logged.
    Logged {
        /// All records of the run, the new one last.
        records: &'a [Record],
    },
    /// The model continued `train.sample_prompt`.
    Sample {
        /// Steps taken.
        step: u64,
        /// Prompt and continuation.
        text: &'a str,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// Steps taken.
        step: u64,
        /// Where it lies.
        path: &'a Path,
    },
    /// No further step is taken, and everything is written.
    Ended {
        /// All records of the run.
        records: &'a [Record],
    },
}

/// What is known when a run begins.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Started<'a> {
    /// Where everything lies.
    pub run: &'a RunDirectory,
    /// The model that the run ends with.
    pub model: ModelConfig,
    /// Its parameters.
    pub parameters: u64,
    /// Evaluations of blocks for one token, all layers together.
    pub evaluations: usize,
    /// Steps taken before.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Tokens in a step, padding included.
    pub tokens_per_step: u64,
    /// What the run is trained on.
    pub sources: Vec<SourceUse>,
    /// FLOP/s that utilisation is a share of, of all devices together.
    pub peak: Option<f64>,
    /// What to compare the validation loss with.
    pub baselines: Baselines,
}

/// How much of a source a run uses.
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
    /// Its training tokens.
    pub tokens: u64,
}
