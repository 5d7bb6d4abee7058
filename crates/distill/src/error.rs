use std::path::PathBuf;

use iiet_data::DataError;
use iiet_model::ModelError;
use iiet_train::TrainError;

/// Errors of measuring influence, choosing a schedule and distilling.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DistillError {
    /// A model without corrections.
    #[error(
        "the model's solver, {}, has no corrections; influence is measured on implicit_euler and iterative_implicit_euler with iterations above 0",
        .solver
    )]
    NoCorrections {
        /// The solver of the model.
        solver: &'static str,
    },
    /// An invalid threshold.
    #[error(
        "the threshold is {found}; allowed: 0 (keeps every correction) and above; influences are between 0 and 2"
    )]
    Threshold {
        /// The given threshold.
        found: f64,
    },
    /// A budget below one evaluation per layer, or above the teacher's.
    #[error(
        "{found} evaluations per layer; allowed: 1, the guess of every layer, to {most}, the number \
         of the teacher"
    )]
    Budget {
        /// The given mean.
        found: f64,
        /// The teacher's mean.
        most: f64,
    },
    /// A schedule that is not a part of the teacher's.
    #[error("the schedule {found}; allowed: {allowed}")]
    Schedule {
        /// The reason.
        found: String,
        /// The teacher's schedule.
        allowed: String,
    },
    /// A corpus with another tokenizer.
    #[error(
        "the corpus has another tokenizer than the teacher; set data.tokenizer = {0:?}, or prepare the corpus like the teacher's",
        .path.display()
    )]
    AnotherTokenizer {
        /// The teacher's tokenizer.
        path: PathBuf,
    },
    /// A teacher that has changed since the run was started.
    #[error(
        "{}: this is not the teacher of the run: blake3 {found}, expected {wanted}",
        .path.display()
    )]
    AnotherTeacher {
        /// The teacher's directory.
        path: PathBuf,
        /// The hash of the directory.
        found: String,
        /// The hash in the configuration.
        wanted: String,
    },
    /// A source that is too short to measure on.
    #[error("{tokens} tokens, fewer than one window of the model's context of {seq}")]
    TooShort {
        /// Tokens of the source.
        tokens: u64,
        /// Tokens per window.
        seq: usize,
    },
    /// A source that cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An invalid key or value in `[distill]`.
    #[error("[distill]: {reason}")]
    Section {
        /// The value, and the allowed values.
        reason: String,
    },
    /// An error of the configuration.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A teacher that cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
}
