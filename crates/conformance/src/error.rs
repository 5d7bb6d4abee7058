//! Errors that keep a check from producing a deviation.

use std::any::Any;
use std::path::PathBuf;

use iiet_distill::DistillError;
use iiet_model::ModelError;
use iiet_train::StepError;

/// The errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConformanceError {
    /// A model that cannot be read or written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A teacher that cannot be evaluated.
    #[error(transparent)]
    Distill(#[from] DistillError),
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A training step that failed.
    #[error("a training step failed: {0}")]
    Step(#[from] StepError),
    /// A case with missing or malformed arrays.
    #[error("{case}: {reason}")]
    Case {
        /// The case's name.
        case: String,
        /// The reason, with the array.
        reason: String,
    },
    /// A tensor that cannot be read back from the device.
    #[error("reading {what} back from the device: {reason}")]
    ReadBack {
        /// The tensor.
        what: String,
        /// Burn's reason.
        reason: String,
    },
    /// Burn panicked.
    #[error("Burn panicked: {0}")]
    Panicked(String),
}

impl ConformanceError {
    pub(crate) fn panicked(payload: &(dyn Any + Send)) -> Self {
        let message = payload.downcast_ref::<String>().cloned();
        let message = message.or_else(|| Some((*payload.downcast_ref::<&str>()?).to_owned()));
        Self::Panicked(message.unwrap_or_else(|| "no message".to_owned()))
    }
}
