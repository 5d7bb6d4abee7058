//! What can go wrong in a run.

use std::io;
use std::path::PathBuf;

use iiet_data::DataError;
use iiet_files::FilesError;
use iiet_model::ModelError;

use crate::Difference;

/// The errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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
    /// A section of the configuration that belongs to no objective, or sections of several.
    #[error("the {found}; allowed: {allowed}")]
    Sections {
        /// What was found.
        found: String,
        /// The sections that can be there.
        allowed: String,
    },
    /// A configuration that says something else than the objective it is to be trained with.
    #[error("{key} is {found}; the objective's is {expected}")]
    Objective {
        /// The key.
        key: String,
        /// In the configuration.
        found: String,
        /// In the objective.
        expected: String,
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
    /// A key of `[model]` that contradicts the weights to start from.
    #[error("{key} is {wanted}; allowed: {found}, as in train.init, {}", dir.display())]
    Initial {
        /// The key.
        key: String,
        /// Its value.
        wanted: String,
        /// That of the weights.
        found: String,
        /// The directory of `train.init`.
        dir: PathBuf,
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
    /// A step in whose batches nothing is to be predicted.
    #[error("step {step}: none of the targets counts, so there is no loss. {checkpoint}")]
    NoTargets {
        /// The step that was not taken.
        step: u64,
        /// Where the last good state is.
        checkpoint: String,
    },
    /// A run directory that must not be written over.
    #[error("{}: there is a run already; continue it with --resume or name another with --run", path.display())]
    RunExists {
        /// The directory.
        path: PathBuf,
    },
    /// A directory for a new run that holds something else.
    #[error(
        "{}: holds {found}; allowed for a new run: a directory that is new or empty",
        path.display()
    )]
    Occupied {
        /// The directory.
        path: PathBuf,
        /// Names of what is there.
        found: String,
    },
    /// No run where one was looked for.
    #[error("{}: no run here to resume; name one with --run or --config", path.display())]
    NoRun {
        /// The folder of runs.
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
    /// A resume under a configuration or on data that belong to another run.
    #[error(
        "cannot resume {}:{}\n  only the learning rate, the number of steps, and what is written and when may change; \
         for another model, data or tokenizer start another run",
        path.display(), list(differences)
    )]
    ResumeMismatch {
        /// The checkpoint.
        path: PathBuf,
        /// What differs.
        differences: Vec<Difference>,
    },
    /// Another process works on the run.
    #[error(
        "{}: another process is training this run; wait for it or name another directory with --run",
        path.display()
    )]
    RunBusy {
        /// The directory.
        path: PathBuf,
    },
    /// A checkpoint that could not be written.
    #[error(
        "cannot write {}: {source}; the last whole checkpoint is untouched: {last}",
        path.display()
    )]
    NotWritten {
        /// The checkpoint.
        path: PathBuf,
        /// The newest checkpoint that is whole.
        last: String,
        /// The reason.
        source: Box<TrainError>,
    },
    /// An update that left the parameters broken.
    #[error(
        "step {step}: {what} after the update; stopped before a checkpoint of it was written. \
         {checkpoint} A lower train.lr, a longer train.warmup or a smaller train.clip may help"
    )]
    Broken {
        /// The step.
        step: u64,
        /// What is not finite.
        what: String,
        /// Where the last good state is.
        checkpoint: String,
    },
    /// A checkpoint with something missing or damaged.
    #[error("{}: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
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
    /// The corpus cannot be read any more.
    #[error(
        "step {step}: {source}; stopped before the update. {checkpoint} Go on with --resume when \
         the corpus is whole again"
    )]
    DataLost {
        /// The step that was not taken.
        step: u64,
        /// The reason.
        source: Box<DataError>,
        /// Where the last good state is.
        checkpoint: String,
    },
    /// From the corpus.
    #[error(transparent)]
    Data(#[from] DataError),
    /// From the model.
    #[error("{}", with_remedy(.0))]
    Model(#[from] ModelError),
    /// A manifest, or a file that differs from it.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A sample of text cannot be drawn.
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

fn list(differences: &[Difference]) -> String {
    let lines = differences
        .iter()
        .map(|difference| format!("\n  {difference}"));
    lines.collect()
}

/// What to do about a system's refusal, where that is known.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room and go on with --resume"
        }
        io::ErrorKind::FileTooLarge => {
            "; raise the limit on the size of files (ulimit -f) and go on with --resume"
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            "; the run directory must be writable: change that, or copy it and name the copy with --run"
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
