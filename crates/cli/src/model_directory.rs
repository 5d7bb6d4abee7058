//! What `--model` means: a model directory, a run's directory, or the name of a model on the hub.

use std::path::{Path, PathBuf};

use crate::print::errln;

/// The directory meant; where that is not the path itself, standard error says so.
pub(crate) fn find(path: &Path) -> anyhow::Result<PathBuf> {
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
