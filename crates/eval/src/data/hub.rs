//! A part of a data set from the Hugging Face Hub.
//!
//! The Hub provides every data set converted to Parquet, as `<subset>/<split>/0000.parquet` of the
//! revision `refs/convert/parquet`. Downloaded files are kept in the Hub's own cache (`HF_HOME`).

use std::path::PathBuf;

use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Repo, RepoType};

use super::{HubData, Split};

/// The Parquet files of a part, downloaded unless they are in the cache.
///
/// # Errors
/// A description of the problem.
pub(super) fn fetch(data: &HubData, split: Split) -> Result<Vec<PathBuf>, String> {
    let api = ApiBuilder::from_env()
        .build()
        .map_err(|error| error.to_string())?;
    let repository = api.repo(Repo::with_revision(
        data.repository.to_owned(),
        RepoType::Dataset,
        "refs/convert/parquet".to_owned(),
    ));
    let files = repository.info().map_err(|error| error.to_string())?;
    let folder = format!("{}/{split}/", data.subset);
    let mut names: Vec<String> = files
        .siblings
        .into_iter()
        .map(|file| file.rfilename)
        .filter(|name| name.starts_with(&folder) && name.ends_with(".parquet"))
        .collect();
    names.sort();
    if names.is_empty() {
        return Err(format!("it has no files {folder}*.parquet"));
    }
    names
        .iter()
        .map(|name| repository.get(name).map_err(|error| error.to_string()))
        .collect()
}
