//! Where results are written: found out before the work, not after it.

use std::fs;
use std::path::Path;

use anyhow::Context;
use iiet_files::check_replaceable;

/// Makes the folder of an output file, and refuses a path that no file can take: a directory, a
/// device, a pipe or a link is never replaced.
pub(crate) fn prepare(out: &Path) -> anyhow::Result<()> {
    let folder = out.parent().filter(|folder| *folder != Path::new(""));
    if let Some(folder) = folder {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    check_replaceable(out).with_context(|| format!("--out {}", out.display()))
}
