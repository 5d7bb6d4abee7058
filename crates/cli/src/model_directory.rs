//! What `--model` means: a model directory, a run's directory, or the name of a model on the hub.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::ensure;

use crate::print::errln;

/// Whether the path is a GGUF file by its name.
pub(crate) fn is_gguf(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    extension.is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) && path.is_file()
}

/// The directory meant; where that is not the path itself, standard error says so.
pub(crate) fn find(path: &Path) -> anyhow::Result<PathBuf> {
    ensure!(
        !is_gguf(path),
        "{}: a GGUF file; write its model directory first, with: iiet convert --model {} --out DIR",
        path.display(),
        path.display()
    );
    let found = match on_the_hub(path)? {
        Some(fetched) => fetched,
        None => iiet_model::model_directory(path),
    };
    if found != path {
        errln!("{}: using {}", path.display(), found.display());
    }
    Ok(found)
}

/// The directory of a model that was fetched, if the path is none and could be a model's name.
#[cfg(feature = "hub")]
fn on_the_hub(path: &Path) -> anyhow::Result<Option<PathBuf>> {
    let name = path.to_str().filter(|name| iiet_model::is_hub_name(name));
    match name.filter(|_| !path.exists()) {
        Some(name) => Ok(Some(iiet_model::fetch_model(name)?)),
        None => Ok(None),
    }
}

#[cfg(not(feature = "hub"))]
fn on_the_hub(_: &Path) -> anyhow::Result<Option<PathBuf>> {
    Ok(None)
}
