//! Errors of training runs.

use std::io;
use std::path::PathBuf;

use iiet_data::DataError;
use iiet_files::FilesError;
use iiet_model::ModelError;

use crate::{Difference, RankError};

/// The errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// An invalid configuration file.
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
        /// The assignment as given.
        assignment: String,
        /// The reason.
        reason: String,
    },
    /// An invalid value.
    #[error("{key} is {found}; {allowed}")]
    Value {
        /// The key, with its section.
        key: &'static str,
        /// The value.
        found: String,
        /// The allowed values.
        allowed: String,
    },
    /// A section that belongs to no objective, or sections of several objectives.
    #[error("the {found}; allowed: {allowed}")]
    Sections {
        /// What was found.
        found: String,
        /// The allowed sections.
        allowed: String,
    },
    /// A configuration whose section differs from the objective's.
    #[error("{key} is {found}; the objective's is {expected}")]
    Objective {
        /// The key.
        key: String,
        /// The value in the configuration.
        found: String,
        /// The objective's value.
        expected: String,
    },
    /// A model or batch that exceeds the available memory.
    #[error(
        "training needs about {needed:.1} GiB ({parameters:.1} GiB for weights, gradients and \
         moments, {activations:.1} GiB for the activations of a micro-batch), and {available:.1} \
         GiB are free; lower train.batch (raise train.accumulation to keep the batch), \
         model.seq_len or the model's sizes"
    )]
    Memory {
        /// GiB in total.
        needed: f64,
        /// GiB independent of the batch.
        parameters: f64,
        /// GiB proportional to the batch.
        activations: f64,
        /// GiB available on the machine.
        available: f64,
    },
    /// A key of `[model]` that contradicts the initial weights.
    #[error("{key} is {wanted}; allowed: {found}, as in train.init, {}", dir.display())]
    Initial {
        /// The key.
        key: String,
        /// Its value.
        wanted: String,
        /// The value of the weights.
        found: String,
        /// The directory of `train.init`.
        dir: PathBuf,
    },
    /// A non-finite loss or gradient.
    #[error(
        "step {step}: the {what} is {value}; stopped before the update. {checkpoint} A lower \
         train.lr, a longer train.warmup or a smaller train.clip may help"
    )]
    NonFinite {
        /// The step that failed.
        step: u64,
        /// Loss or gradient norm.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The last checkpoint, as a sentence.
        checkpoint: String,
    },
    /// A step without targets in its batches.
    #[error("step {step}: no target has a positive weight, so there is no loss. {checkpoint}")]
    NoTargets {
        /// The step that failed.
        step: u64,
        /// The last checkpoint, as a sentence.
        checkpoint: String,
    },
    /// A run directory that must not be overwritten.
    #[error("{}: there is a run already; continue it with --resume or specify another directory with --run", path.display())]
    RunExists {
        /// The directory.
        path: PathBuf,
    },
    /// A directory for a new run that contains other files.
    #[error(
        "{}: contains {found}; allowed for a new run: a new or empty directory",
        path.display()
    )]
    Occupied {
        /// The directory.
        path: PathBuf,
        /// Names of the files.
        found: String,
    },
    /// No run to resume.
    #[error("{}: no run to resume; specify one with --run or --config", path.display())]
    NoRun {
        /// The directory of runs.
        path: PathBuf,
    },
    /// No complete checkpoint to resume from.
    #[error("{}: no complete checkpoint to resume from{}", path.display(), passed_over(passed))]
    NothingToResume {
        /// The directory of checkpoints.
        path: PathBuf,
        /// Checkpoints that could not be used, with the reasons.
        passed: Vec<String>,
    },
    /// A resume with a configuration or data of another run.
    #[error(
        "cannot resume {}:{}\n  only the learning rate, the number of steps, and what is written and when may change; \
         for another model, data or tokenizer start a new run",
        path.display(), list(differences)
    )]
    ResumeMismatch {
        /// The checkpoint.
        path: PathBuf,
        /// The differences.
        differences: Vec<Difference>,
    },
    /// Processes that cannot train together.
    #[error("rank {rank} differs from rank 0:{}", of_ranks(*rank, differences))]
    RanksDiffer {
        /// The first rank that differs.
        rank: usize,
        /// The differences: rank 0's value, and the other's.
        differences: Vec<Difference>,
    },
    /// The error of another rank, without which this one cannot go on.
    #[error("rank {rank}: {reason}")]
    OtherRank {
        /// Its number.
        rank: usize,
        /// Its error.
        reason: String,
    },
    /// A failed exchange between ranks.
    #[error(transparent)]
    Ranks(#[from] RankError),
    /// A run that another process is training.
    #[error(
        "{}: another process is training this run; wait for it or specify another directory with --run",
        path.display()
    )]
    RunBusy {
        /// The directory.
        path: PathBuf,
    },
    /// A checkpoint that could not be written.
    #[error(
        "cannot write {}: {source}; the last complete checkpoint is unchanged: {last}",
        path.display()
    )]
    NotWritten {
        /// The checkpoint.
        path: PathBuf,
        /// The newest complete checkpoint.
        last: String,
        /// The reason.
        source: Box<TrainError>,
    },
    /// An update after which the parameters are non-finite.
    #[error(
        "step {step}: {what} after the update; stopped before a checkpoint of it was written. \
         {checkpoint} A lower train.lr, a longer train.warmup or a smaller train.clip may help"
    )]
    Broken {
        /// The step.
        step: u64,
        /// What is not finite.
        what: String,
        /// The last checkpoint, as a sentence.
        checkpoint: String,
    },
    /// A checkpoint with missing or damaged content.
    #[error("{}: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A file that cannot be read or written.
    #[error("{}: {source}{}", path.display(), remedy(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A corpus that can no longer be read.
    #[error(
        "step {step}: {source}; stopped before the update. {checkpoint} Continue with --resume when \
         the corpus is intact again"
    )]
    DataLost {
        /// The step that failed.
        step: u64,
        /// The reason.
        source: Box<DataError>,
        /// The last checkpoint, as a sentence.
        checkpoint: String,
    },
    /// An error of the data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An error of the model.
    #[error("{}", with_remedy(.0))]
    Model(#[from] ModelError),
    /// A manifest that cannot be used, or a file that differs from its record.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A sample of text that cannot be generated.
    #[error(transparent)]
    Text(#[from] iiet_text::TextError),
}

impl TrainError {
    /// For `map_err`.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

fn of_ranks(rank: usize, differences: &[Difference]) -> String {
    let lines = differences.iter().map(|difference| {
        let Difference { key, before, now } = difference;
        format!("\n  {key} is {before} on rank 0 and {now} on rank {rank}")
    });
    lines.collect()
}

fn list(differences: &[Difference]) -> String {
    let lines = differences
        .iter()
        .map(|difference| format!("\n  {difference}"));
    lines.collect()
}

/// Advice for errors of the system with a known remedy.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space and continue with --resume"
        }
        io::ErrorKind::FileTooLarge => {
            "; raise the limit on file sizes (ulimit -f) and continue with --resume"
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            "; the run directory must be writable: change its permissions, or copy it and specify the copy with --run"
        }
        _ => "",
    }
}

fn with_remedy(error: &ModelError) -> String {
    match error {
        ModelError::Io { source, .. } | ModelError::Files(FilesError::Io { source, .. }) => {
            format!("{error}{}", remedy(source))
        }
        _ => error.to_string(),
    }
}

fn passed_over(passed: &[String]) -> String {
    passed
        .iter()
        .map(|reason| format!("\n  passed over {reason}"))
        .collect()
}
