//! A part of a data set from the Hugging Face Hub.
//!
//! The Hub provides every data set converted to Parquet, as `<subset>/<split>/0000.parquet` of the
//! revision `refs/convert/parquet`. Downloaded files are kept in the Hub's own cache (`HF_HUB_CACHE`, `HF_HOME`).

use std::path::PathBuf;

use hf_hub::{Repo, RepoType};
use iiet_files::{hub_api, hub_cache};

use super::{HubData, Split};

/// The Parquet files of a part, downloaded unless they are in the cache. If the hub cannot be reached, or
/// `HF_HUB_OFFLINE` forbids it, those in the cache are used. A token is read from `HF_TOKEN` or the file that
/// `hf auth login` writes.
///
/// # Errors
/// A description of the problem.
pub(super) fn fetch(data: &HubData, split: Split) -> Result<Vec<PathBuf>, String> {
    let repository = Repo::with_revision(
        data.repository.to_owned(),
        RepoType::Dataset,
        "refs/convert/parquet".to_owned(),
    );
    let folder = format!("{}/{split}/", data.subset);
    download(repository.clone(), &folder).or_else(|error| cached(repository, &folder).ok_or(error))
}

fn download(repository: Repo, folder: &str) -> Result<Vec<PathBuf>, String> {
    let api = hub_api()?;
    let repository = api.repo(repository);
    let files = repository.info().map_err(|error| error.to_string())?;
    let mut names: Vec<String> = files
        .siblings
        .into_iter()
        .map(|file| file.rfilename)
        .filter(|name| name.starts_with(folder) && name.ends_with(".parquet"))
        .collect();
    names.sort();
    if names.is_empty() {
        return Err(format!("it has no files {folder}*.parquet"));
    }
    // The first file last: if it is in the cache, so are the others.
    let fetched = names.iter().rev().map(|name| repository.get(name));
    let mut paths = fetched
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.to_string())?;
    paths.reverse();
    Ok(paths)
}

/// The files of a part in the cache, if all are there.
fn cached(repository: Repo, folder: &str) -> Option<Vec<PathBuf>> {
    let first = hub_cache()
        .repo(repository)
        .get(&format!("{folder}0000.parquet"))?;
    let files = std::fs::read_dir(first.parent()?).ok()?;
    let files = files.collect::<Result<Vec<_>, _>>().ok()?;
    let mut paths: Vec<PathBuf> = files.into_iter().map(|file| file.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "parquet"));
    paths.sort();
    Some(paths)
}
