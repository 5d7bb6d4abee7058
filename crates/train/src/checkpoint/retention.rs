//! Retention of checkpoints: the newest k, and the one with the lowest validation loss.
//!
//! Only checkpoints that this process has verified against their manifest count. A damaged checkpoint must
//! not count as one of the k, or it would be kept instead of a complete one.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use iiet_files::{FilesError, remove_directory};

use super::{list, read_state};
use crate::{RunDirectory, TrainError};

/// The verified checkpoints of a run.
#[derive(Debug, Default)]
pub(crate) struct Retention {
    /// Verified checkpoints with their validation loss.
    verified: BTreeMap<u64, Verified>,
}

#[derive(Debug)]
struct Verified {
    path: PathBuf,
    validation_loss: Option<f64>,
}

impl Retention {
    /// Adds a checkpoint that was read and verified.
    pub(crate) fn enter(&mut self, step: u64, path: &Path, validation_loss: Option<f64>) {
        let path = path.to_owned();
        let verified = Verified {
            path,
            validation_loss,
        };
        self.verified.insert(step, verified);
    }

    /// The newest verified checkpoint.
    pub(crate) fn newest(&self) -> Option<&Path> {
        let newest = self.verified.last_key_value();
        newest.map(|(_, verified)| verified.path.as_path())
    }

    /// Verifies the checkpoint just written, then removes all but the newest `keep` and the best, and
    /// leftovers of interrupted writes.
    ///
    /// Damaged checkpoints are also removed, and those of later steps: they belong to updates that were
    /// passed over when the run was resumed, and are repeated now.
    ///
    /// # Errors
    ///
    /// [`TrainError`] if the checkpoint cannot be read back; nothing is removed then.
    pub(super) fn written(
        &mut self,
        run: &RunDirectory,
        step: u64,
        keep: usize,
    ) -> Result<(), TrainError> {
        remove_leftovers(run)?;
        let found = list(run)?;
        // Checkpoints that a user has removed do not count.
        self.verified
            .retain(|step, _| found.iter().any(|(found, _)| found == step));
        self.verified.remove(&step);
        let (mut whole, mut leave) = (Vec::new(), Vec::new());
        for (at, path) in &found {
            match at {
                at if *at > step => leave.push(path),
                at => match self.verify(*at, path) {
                    Ok(()) => whole.push(*at),
                    Err(error) if *at == step => return Err(error),
                    Err(error) if is_damage(&error) => leave.push(path),
                    // A checkpoint that cannot be read now may be complete: it is neither counted nor
                    // removed.
                    Err(_) => {}
                },
            }
        }
        let best = self.best(&whole);
        for at in whole.into_iter().skip(keep) {
            if Some(at) != best {
                leave.extend(found.iter().find(|(of, _)| *of == at).map(|(_, path)| path));
                self.verified.remove(&at);
            }
        }
        for path in leave {
            remove_directory(path).map_err(TrainError::io(path))?;
        }
        self.verified.retain(|at, _| *at <= step);
        Ok(())
    }

    /// Verifies a checkpoint, unless that was done before.
    fn verify(&mut self, step: u64, path: &Path) -> Result<(), TrainError> {
        if self.verified.contains_key(&step) {
            return Ok(());
        }
        let manifest = super::manifest(path)?;
        manifest.verify(path, manifest.files().map(|(name, _)| name))?;
        let state = read_state(path)?;
        self.enter(step, path, state.validation_loss);
        Ok(())
    }

    /// The step with the lowest validation loss; the newest among equals.
    fn best(&self, newest_first: &[u64]) -> Option<u64> {
        let measured = newest_first
            .iter()
            .filter_map(|step| Some((self.verified[step].validation_loss?, *step)));
        let least = measured.min_by(|(a, _), (b, _)| a.total_cmp(b));
        least.map(|(_, step)| step)
    }
}

/// Whether an error shows that a checkpoint is damaged, and not only that it cannot be read now.
fn is_damage(error: &TrainError) -> bool {
    match error {
        TrainError::Io { source, .. } | TrainError::Files(FilesError::Io { source, .. }) => {
            source.kind() == io::ErrorKind::NotFound
        }
        _ => true,
    }
}

/// Removes the hidden directories that an interrupted write or removal left.
pub(crate) fn remove_leftovers(run: &RunDirectory) -> Result<(), TrainError> {
    let folder = run.checkpoints();
    for entry in fs::read_dir(&folder).map_err(TrainError::io(&folder))? {
        let path = entry.map_err(TrainError::io(&folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let ours = name.trim_start_matches('.').starts_with("step-")
            && name.starts_with('.')
            && [".partial", ".replaced", ".removed"]
                .iter()
                .any(|suffix| name.ends_with(suffix));
        if ours {
            fs::remove_dir_all(&path).map_err(TrainError::io(&path))?;
        }
    }
    Ok(())
}
