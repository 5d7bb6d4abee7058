//! Errors of reading and writing files, and of directories with a manifest.

use std::io;
use std::path::PathBuf;

/// The errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// A file that cannot be opened, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A manifest that cannot be used.
    #[error(
        "{}: {reason}; if the directory is intact, delete this file",
        path.display()
    )]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A file that differs from its record in the manifest.
    #[error(
        "{}: damaged or changed: {found}, iiet-manifest.json beside it records {expected}; if the \
         file was changed on purpose, delete the manifest",
        path.display()
    )]
    Differs {
        /// The file.
        path: PathBuf,
        /// The file's length and hash.
        found: String,
        /// The recorded length and hash.
        expected: String,
    },
}

impl FilesError {
    /// For `map_err`.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
