//! Lists and filters the files of one package.

use std::fs;
use std::path::{Path, PathBuf};

use super::LeftOut;
use super::generated;
use crate::error::DataError;

/// Larger files are tables, bindings or test vectors.
const MAX_FILE_BYTES: u64 = 512 * 1024;

/// A candidate.
pub(super) struct SourceFile {
    pub path: PathBuf,
    /// The path within the package, with `/` as the separator on every platform.
    pub relative: String,
    pub bytes: u64,
}

/// The `.rs` and `.md` files of a package, ordered by their path within it.
pub(super) fn list(folder: &Path) -> Result<Vec<SourceFile>, DataError> {
    let mut files = Vec::new();
    search(folder, "", &mut files)?;
    files.sort_by(|a, b| a.relative.cmp(&b.relative));
    Ok(files)
}

fn search(folder: &Path, prefix: &str, files: &mut Vec<SourceFile>) -> Result<(), DataError> {
    for entry in fs::read_dir(folder).map_err(DataError::io(folder))? {
        let entry = entry.map_err(DataError::io(folder))?;
        let path = entry.path();
        // Names outside UTF-8 and links do not occur in published packages.
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let kind = entry.file_type().map_err(DataError::io(&path))?;
        let relative = format!("{prefix}{name}");
        if kind.is_dir() {
            search(&path, &format!("{relative}/"), files)?;
        } else if kind.is_file() && (name.ends_with(".rs") || name.ends_with(".md")) {
            let bytes = entry.metadata().map_err(DataError::io(&path))?.len();
            files.push(SourceFile {
                path,
                relative,
                bytes,
            });
        }
    }
    Ok(())
}

/// The hash of a file's bytes if it is included, otherwise the reason.
pub(super) fn judge(
    file: &SourceFile,
    krate: &str,
) -> Result<Result<blake3::Hash, LeftOut>, DataError> {
    if generated::is_bindings_crate(krate) {
        return Ok(Err(LeftOut::BindingsCrate));
    }
    if file.bytes > MAX_FILE_BYTES {
        return Ok(Err(LeftOut::LargeFile));
    }
    let bytes = fs::read(&file.path).map_err(DataError::io(&file.path))?;
    Ok(match std::str::from_utf8(&bytes) {
        Ok(text) if !text.is_empty() => match generated::reason(text, &file.relative) {
            None => Ok(blake3::hash(&bytes)),
            Some(reason) => Err(reason),
        },
        _ => Err(LeftOut::NotText),
    })
}
