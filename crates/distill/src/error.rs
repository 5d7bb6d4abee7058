use std::path::PathBuf;

use iiet_data::DataError;
use iiet_model::ModelError;
use iiet_train::TrainError;

/// What can go wrong when a model is measured or a schedule is chosen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DistillError {
    /// A model that has nothing to drop.
    #[error(
        "the model's solver, {}, takes no corrections; influence is measured on implicit_euler and iterative_implicit_euler with iterations above 0",
        .solver
    )]
    NoCorrections {
        /// The solver of the model.
        solver: &'static str,
    },
    /// A threshold that is no influence.
    #[error(
        "the threshold is {found}; allowed: 0 (keeps every correction) and above; influences lie between 0 and 2"
    )]
    Threshold {
        /// The threshold asked for.
        found: f64,
    },
    /// A budget that not even the guesses meet, or that the teacher does not use.
    #[error(
        "{found} evaluations a layer; allowed: 1, the guess that every layer makes, to {most}, what \
         the teacher takes"
    )]
    Budget {
        /// The mean asked for.
        found: f64,
        /// The teacher's.
        most: f64,
    },
    /// A schedule that is no part of the teacher's.
    #[error("the schedule {found}; allowed: {allowed}")]
    Schedule {
        /// What is wrong with it.
        found: String,
        /// What the teacher has.
        allowed: String,
    },
    /// A corpus that another tokenizer made.
    #[error(
        "the corpus has another tokenizer than the teacher, whose is {0}; set data.tokenizer = {0:?}, or prepare the corpus as the teacher's was",
        .path.display()
    )]
    AnotherTokenizer {
        /// The teacher's tokenizer.
        path: PathBuf,
    },
    /// A teacher that has changed since the run began.
    #[error(
        "{}: this is not the teacher that the run began with: blake3 {found}, then {wanted}",
        .path.display()
    )]
    AnotherTeacher {
        /// The teacher's directory.
        path: PathBuf,
        /// The hash of what lies there.
        found: String,
        /// The hash in the configuration.
        wanted: String,
    },
    /// Too little text to measure on.
    #[error("{tokens} tokens, fewer than one window of the model's context of {seq}")]
    TooShort {
        /// Tokens of the source.
        tokens: u64,
        /// Tokens of a window.
        seq: usize,
    },
    /// The text could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// `[distill]` has a key or a value that it cannot have.
    #[error("[distill]: {reason}")]
    Section {
        /// What was found and what is allowed.
        reason: String,
    },
    /// From the configuration.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The teacher could not be read.
    #[error(transparent)]
    Model(#[from] ModelError),
}
