//! What can go wrong with a picture.

use std::io;
use std::path::PathBuf;

use iiet_sweep::SweepError;

/// The errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlotError {
    /// A picture that could not be drawn.
    #[error("{}: {reason}", path.display())]
    Drawing {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A file that could not be written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A sweep that cannot be shown so.
    #[error(transparent)]
    Sweep(SweepError),
}
