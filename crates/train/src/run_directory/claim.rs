//! Exclusive access to a run directory: one process at a time, and new runs only in empty
//! directories.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use iiet_files::FileLock;

use super::{PARTS, RunDirectory, candidates};
use crate::{Ranks, TrainError};

/// How long to wait for another process to exit.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

const LOCK: &str = ".lock";

/// A run directory to which this process has exclusive access while the value exists.
///
/// If it was created for a new run and nothing was written to it, it is removed on drop.
#[derive(Debug)]
pub struct ClaimedRun {
    run: RunDirectory,
    /// `None` during drop, and where another process has claimed the run for this one.
    lock: Option<FileLock>,
    is_new: bool,
    created: bool,
}

impl ClaimedRun {
    /// A directory for a new run: the one given, which must be new or empty, or the first such
    /// directory of `runs/NAME`, `runs/NAME-2`, ..
    ///
    /// # Errors
    ///
    /// [`TrainError::RunExists`] if it contains any part of a run, [`TrainError::Occupied`] if it
    /// contains other files, [`TrainError::RunBusy`].
    pub fn new(given: Option<&Path>, name: &str) -> Result<Self, TrainError> {
        if let Some(path) = given {
            return Self::claim_new(path.to_owned());
        }
        for path in candidates(name) {
            match Self::claim_new(path) {
                Err(
                    TrainError::RunExists { .. }
                    | TrainError::Occupied { .. }
                    | TrainError::RunBusy { .. },
                ) => {}
                claimed => return claimed,
            }
        }
        unreachable!("invariant: there are infinitely many candidates")
    }

    /// A run to resume: see [`RunDirectory::existing`].
    ///
    /// # Errors
    ///
    /// [`TrainError::NoRun`], [`TrainError::RunBusy`].
    pub fn existing(given: Option<&Path>, name: &str) -> Result<Self, TrainError> {
        let run = RunDirectory::existing(given, name)?;
        Ok(Self {
            lock: Some(lock(&run)?),
            run,
            is_new: false,
            created: false,
        })
    }

    /// The run that the first of several processes claims, on all of them.
    ///
    /// # Errors
    ///
    /// Those of the first process, on all of them.
    pub fn of_ranks(
        ranks: &Ranks,
        claim: impl FnOnce() -> Result<Self, TrainError>,
    ) -> Result<Self, TrainError> {
        let mut first = None;
        let (path, is_new) = ranks.of_first(|| {
            let claimed = claim()?;
            // The others may have another current directory.
            let path = std::path::absolute(&claimed.run.path);
            let path = path.map_err(TrainError::io(&claimed.run.path))?;
            let of_all = (path, claimed.is_new);
            first = Some(claimed);
            Ok::<_, TrainError>(of_all)
        })?;
        Ok(first.unwrap_or_else(|| Self {
            run: RunDirectory { path },
            lock: None,
            is_new,
            created: false,
        }))
    }

    fn claim_new(path: PathBuf) -> Result<Self, TrainError> {
        let run = RunDirectory { path };
        refuse_contents(&run)?;
        let created = !run.path.exists();
        fs::create_dir_all(&run.path).map_err(TrainError::io(&run.path))?;
        let claimed = Self {
            lock: Some(lock(&run)?),
            run,
            is_new: true,
            created,
        };
        // Another process may have held the lock, started a run and ended in the meantime.
        refuse_contents(&claimed.run)?;
        Ok(claimed)
    }

    /// The directory.
    pub fn directory(&self) -> &RunDirectory {
        &self.run
    }

    /// Whether this is a new run.
    pub fn is_new(&self) -> bool {
        self.is_new
    }
}

impl Drop for ClaimedRun {
    fn drop(&mut self) {
        if self.is_new && self.created && contents(&self.run).is_ok_and(|names| names.is_empty()) {
            // If removing fails, an empty directory remains, which the next run may use.
            let _ = self.lock.take().map(FileLock::remove);
            let _ = fs::remove_dir(&self.run.path);
        }
    }
}

fn lock(run: &RunDirectory) -> Result<FileLock, TrainError> {
    let path = run.path.join(LOCK);
    // A process that was killed, or one that is just forking, may hold the lock slightly longer.
    for _ in 0..TRIES {
        match FileLock::try_acquire(&path).map_err(TrainError::io(&path))? {
            Some(lock) => return Ok(lock),
            None => sleep(PAUSE),
        }
    }
    Err(TrainError::RunBusy {
        path: run.path.clone(),
    })
}

/// Rejects a directory that contains anything: a new run must not overwrite other files.
fn refuse_contents(run: &RunDirectory) -> Result<(), TrainError> {
    let found = contents(run)?;
    let path = || run.path.clone();
    if found.iter().any(|name| PARTS.contains(&name.as_str())) {
        return Err(TrainError::RunExists { path: path() });
    }
    match found.first() {
        None => Ok(()),
        Some(first) => Err(TrainError::Occupied {
            path: path(),
            found: match found.len() {
                1 => first.clone(),
                all => format!("{first} and {} more", all - 1),
            },
        }),
    }
}

/// The entries of a run directory except the lock, sorted; empty if the directory does not exist.
fn contents(run: &RunDirectory) -> Result<Vec<String>, TrainError> {
    let entries = match fs::read_dir(&run.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(TrainError::io(&run.path))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(TrainError::io(&run.path))?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    names.retain(|name| name != LOCK);
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_any_part_of_a_run_or_other_files_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        for part in PARTS {
            let path = folder.path().join(format!("with-{part}"));
            fs::create_dir_all(path.join(part)).unwrap();
            let error = ClaimedRun::new(Some(&path), "").unwrap_err();
            assert!(matches!(error, TrainError::RunExists { .. }), "{error}");
        }
        let path = folder.path().join("thesis");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("chapter.tex"), "text").unwrap();
        fs::write(path.join("notes"), "text").unwrap();
        let error = ClaimedRun::new(Some(&path), "").unwrap_err();
        assert!(matches!(error, TrainError::Occupied { .. }), "{error}");
        assert!(
            error.to_string().contains("chapter.tex and 1 more"),
            "{error}"
        );
        assert!(!path.join(LOCK).exists());
    }

    #[test]
    fn claims_are_exclusive_and_unused_directories_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let claimed = ClaimedRun::new(Some(&path), "").unwrap();
        let error = ClaimedRun::new(Some(&path), "").unwrap_err();
        assert!(matches!(error, TrainError::RunBusy { .. }), "{error}");
        drop(claimed);
        assert!(!path.exists());

        // A directory that existed before is kept.
        fs::create_dir(&path).unwrap();
        drop(ClaimedRun::new(Some(&path), "").unwrap());
        assert!(path.exists());
        drop(ClaimedRun::new(Some(&path), "").unwrap());
    }
}
