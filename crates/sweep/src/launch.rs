//! How a trial is run: as a process, or as something else in a test.

use std::io;
use std::path::Path;

use crate::Trial;

/// What a trial is to do now.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The trial.
    pub trial: &'a Trial,
    /// The configuration that its settings are on top of.
    pub config: &'a Path,
    /// Its run directory.
    pub run: &'a Path,
    /// Where it writes what it prints.
    pub log: &'a Path,
    /// Whether the run exists, to go on with.
    pub resume: bool,
    /// The step to stop after, with a checkpoint.
    pub until: u64,
    /// Threads to compute with.
    pub threads: usize,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It did what it was to do.
    Done,
    /// It was asked to stop, by whomever, and can be resumed.
    Stopped,
    /// It cannot go on, and why.
    Failed(String),
}

/// Starts jobs.
pub trait Launcher {
    /// A job that is running.
    type Process: Process;

    /// Starts a job.
    ///
    /// # Errors
    ///
    /// The system's, if it cannot be started. This ends the sweep.
    fn launch(&mut self, job: &Job<'_>) -> io::Result<Self::Process>;
}

/// A job that is running.
pub trait Process {
    /// How it ended; none as long as it runs.
    ///
    /// # Errors
    ///
    /// The system's.
    fn poll(&mut self) -> io::Result<Option<Ended>>;

    /// Asks it to write a checkpoint and to end.
    fn stop(&mut self);
}
