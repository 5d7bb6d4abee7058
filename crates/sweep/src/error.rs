//! What can go wrong with a sweep.

use std::io;
use std::path::PathBuf;

use iiet_train::TrainError;

/// The errors of this crate. The failure of a trial is not among them: it is a result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SweepError {
    /// A `--grid` that cannot be understood.
    #[error("--grid {text}: {reason}")]
    Grid {
        /// As given.
        text: String,
        /// What is wrong with it, and what is allowed.
        reason: String,
    },
    /// An option of the sweep that no sweep can have.
    #[error("{option} is {found}; allowed: {allowed}")]
    Option {
        /// Its name.
        option: &'static str,
        /// The value found.
        found: String,
        /// What is allowed.
        allowed: String,
    },
    /// Settings that are no configuration.
    #[error("trial {trial}: {source}")]
    Trial {
        /// Its name.
        trial: String,
        /// The reason.
        source: Box<TrainError>,
    },
    /// A sweep under a configuration that is not the one it was begun with.
    #[error(
        "{}: the sweep was begun with another configuration:{}\n  name another directory with --out, or \
         give the configuration that the sweep was begun with",
        path.display(), differences.iter().map(|line| format!("\n  {line}")).collect::<String>()
    )]
    Changed {
        /// The configuration of the sweep.
        path: PathBuf,
        /// One line for each key.
        differences: Vec<String>,
    },
    /// A directory for a new sweep that holds something else.
    #[error("{}: holds {found} and no sweep; allowed: a directory that is new, empty, or a sweep's", path.display())]
    Occupied {
        /// The directory.
        path: PathBuf,
        /// The name of something that is there.
        found: String,
    },
    /// Another process works on the sweep.
    #[error("{}: another process is running this sweep", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// A trial that could not be started.
    #[error("cannot start trial {trial}: {source}")]
    Launch {
        /// Its name.
        trial: String,
        /// The reason.
        source: io::Error,
    },
    /// A file that is not what it should be.
    #[error("{}, line {line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The same trial in several results.
    #[error("trial {trial} is given twice, with the same configuration and seed")]
    Twice {
        /// Its name.
        trial: String,
    },
    /// A quantity that no trial has.
    #[error("no trial has {metric:?}; allowed: {}", allowed.join(", "))]
    Metric {
        /// As asked for.
        metric: String,
        /// What there is.
        allowed: Vec<String>,
    },
    /// A key that the trials do not have.
    #[error("no trial has the key {key:?}; allowed: {}", allowed.join(", "))]
    Key {
        /// As asked for.
        key: String,
        /// What there is.
        allowed: Vec<String>,
    },
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// From the configuration or a run.
    #[error(transparent)]
    Train(#[from] TrainError),
}

impl SweepError {
    /// For `map_err`.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
