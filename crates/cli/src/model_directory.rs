//! What `--model` means: a model directory, a run's directory (its model or newest checkpoint), the name of a model on the hub, or a GGUF file.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use iiet_gguf::import_llama;
use tempfile::TempDir;

use crate::print::errln;

/// Whether the path is a GGUF file by its name.
pub(crate) fn is_gguf(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    extension.is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) && path.is_file()
}

/// Model directories of GGUF files, which are deleted when this is dropped.
#[derive(Default)]
pub(crate) struct Converted(Vec<Conversion>);

struct Conversion {
    file: PathBuf,
    directory: PathBuf,
    _folder: TempDir,
}

impl Converted {
    /// What outlives the directories names the file: the path of one of them is that of its file, others are unchanged.
    pub(crate) fn origin(&self, directory: &Path) -> PathBuf {
        let found = self.0.iter().find(|made| made.directory == directory);
        found.map_or(directory, |made| &made.file).to_owned()
    }

    /// The message with the files in the place of their directories.
    pub(crate) fn with_origins(&self, message: String) -> String {
        self.0.iter().fold(message, |message, made| {
            let [directory, file] = [&made.directory, &made.file].map(|path| path.display());
            message.replace(&directory.to_string(), &file.to_string())
        })
    }
}

/// The directory meant; where that is not the path itself, standard error says so.
pub(crate) fn find(path: &Path, converted: &mut Converted) -> anyhow::Result<PathBuf> {
    if is_gguf(path) {
        let folder = tempfile::Builder::new().prefix("iiet-").tempdir();
        let folder = folder.context("a temporary directory for the model of a GGUF file")?;
        // Reports label a model by the end of its path.
        let directory = folder
            .path()
            .join(path.file_name().unwrap_or(OsStr::new("model")));
        errln!(
            "{}: converting into {}; `iiet convert --model {} --out DIR` does so once for all",
            path.display(),
            directory.display(),
            path.display()
        );
        import_llama(path, &directory)?;
        converted.0.push(Conversion {
            file: path.to_owned(),
            directory: directory.clone(),
            _folder: folder,
        });
        return Ok(directory);
    }
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
