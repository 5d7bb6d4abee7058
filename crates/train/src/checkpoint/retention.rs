//! Which checkpoints stay: the newest k, and the one with the least validation loss.

use std::fs;
use std::path::{Path, PathBuf};

use iiet_files::{Manifest, remove_directory};

use super::{list, read_state};
use crate::{RunDirectory, TrainError};

/// Removes all checkpoints but the newest `keep` and the best, and what interrupted writes left.
///
/// Before anything is removed, the checkpoint just written is read back and compared with its
/// manifest: a disk that lost it must not take the last good one with it.
pub(super) fn prune(run: &RunDirectory, written: &Path, keep: usize) -> Result<(), TrainError> {
    remove_leftovers(run)?;
    let found = list(run)?;
    let (whole, broken): (Vec<PathBuf>, Vec<PathBuf>) = found
        .into_iter()
        .map(|(_, path)| path)
        .partition(|path| looks_whole(path));
    let best = best(&whole);
    let stay = |at: usize, path: &PathBuf| at < keep || Some(path) == best.as_ref();
    let older = whole
        .iter()
        .enumerate()
        .filter(|(at, path)| !stay(*at, path));
    let leave: Vec<&PathBuf> = older.map(|(_, path)| path).chain(&broken).collect();
    if leave.is_empty() {
        return Ok(());
    }
    let manifest = super::manifest(written)?;
    manifest.verify(written, manifest.files().map(|(name, _)| name))?;
    for path in leave {
        remove_directory(path).map_err(TrainError::io(path))?;
    }
    Ok(())
}

/// The checkpoint with the least validation loss; of equals, the newest.
fn best(newest_first: &[PathBuf]) -> Option<PathBuf> {
    let measured = newest_first.iter().filter_map(|path| {
        let loss = read_state(path).ok()?.validation_loss?;
        Some((loss, path))
    });
    let least = measured.min_by(|(a, _), (b, _)| a.total_cmp(b));
    least.map(|(_, path)| path.clone())
}

/// Whether a checkpoint has a manifest and every file has the length it records. Contents are
/// compared when it is resumed.
pub(super) fn looks_whole(path: &Path) -> bool {
    let Ok(Some(manifest)) = Manifest::read(path) else {
        return false;
    };
    let as_recorded = |name: &str, bytes: u64| {
        let found = fs::metadata(path.join(name));
        found.is_ok_and(|file| file.len() == bytes)
    };
    manifest
        .files()
        .all(|(name, record)| as_recorded(name, record.bytes))
}

/// Removes the hidden folders that an interrupted write or removal left.
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
