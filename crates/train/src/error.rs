//! What can go wrong in a run.

use std::path::PathBuf;

use iiet_data::DataError;
use iiet_model::ModelError;

/// The errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The configuration file is not what it should be.
    #[error("{}: {reason}", path.display())]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// Line, column, what was found and what is allowed.
        reason: String,
    },
    /// A `--set` that cannot be applied.
    #[error("--set {assignment}: {reason}")]
    Set {
        /// As given.
        assignment: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A value that no run can have.
    #[error("{key} is {found}; {allowed}")]
    Value {
        /// The key, with its section.
        key: &'static str,
        /// The value found.
        found: String,
        /// What is allowed.
        allowed: String,
    },
    /// The model or its batches would not fit.
    #[error(
        "training needs about {needed:.1} GiB ({parameters:.1} GiB for weights, gradients and \
         moments, {activations:.1} GiB for the activations of a micro-batch), and {available:.1} \
         GiB are free; lower train.batch (raise train.accumulation to keep the batch), \
         model.seq_len or the model's sizes"
    )]
    Memory {
        /// GiB, in all.
        needed: f64,
        /// GiB that do not depend on the batch.
        parameters: f64,
        /// GiB that grow with the batch.
        activations: f64,
        /// GiB that the machine has to give.
        available: f64,
    },
    /// A loss or gradient that is no number.
    #[error(
        "step {step}: the {what} is {value}; stopped before the update. {checkpoint} A lower \
         train.lr, a longer train.warmup or a smaller train.clip may help"
    )]
    NonFinite {
        /// The step that was not taken.
        step: u64,
        /// Loss or gradient norm.
        what: &'static str,
        /// Its value.
        value: f64,
        /// Where the last good state is.
        checkpoint: String,
    },
    /// A run directory that must not be written over.
    #[error("{}: there is a run already; continue it with --resume or name another with --run", path.display())]
    RunExists {
        /// The directory.
        path: PathBuf,
    },
    /// Nothing to resume.
    #[error("{}: no complete checkpoint to resume from{}", path.display(), passed_over(passed))]
    NothingToResume {
        /// The folder of checkpoints.
        path: PathBuf,
        /// Checkpoints that could not be used, and why.
        passed: Vec<String>,
    },
    /// A resume under a configuration that belongs to another run.
    #[error(
        "cannot resume: {key} was {before} and is {now}; only the learning rate, the number of steps and what is logged may change"
    )]
    ResumeMismatch {
        /// The key.
        key: &'static str,
        /// In the run directory.
        before: String,
        /// In the configuration given.
        now: String,
    },
    /// A checkpoint with something missing or damaged.
    #[error("{}: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A picture that could not be drawn.
    #[error("{}: {reason}", path.display())]
    Curve {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// From the corpus.
    #[error(transparent)]
    Data(#[from] DataError),
    /// From the model.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl TrainError {
    /// For `map_err`.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

fn passed_over(passed: &[String]) -> String {
    passed
        .iter()
        .map(|reason| format!("\n  passed over {reason}"))
        .collect()
}
