//! Output files, checked before the work and not after it.

use std::fs;
use std::path::Path;

use anyhow::Context;
use iiet_files::check_replaceable;

/// Creates the directory of an output file, and rejects a path that cannot be a regular file: a
/// directory, a device, a pipe or a link is never replaced.
pub(crate) fn prepare(out: &Path) -> anyhow::Result<()> {
    let folder = out.parent().filter(|folder| *folder != Path::new(""));
    if let Some(folder) = folder {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    check_replaceable(out).with_context(|| format!("--out {}", out.display()))
}
