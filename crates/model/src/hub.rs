//! Models of the Hugging Face hub, by name.
//!
//! Fetched files stay in the hub's own cache (`HF_HUB_CACHE`, `HF_HOME`), where `transformers` finds them too. The
//! cache's reference `main` is written once all files of a revision are there, so a fetch that ended early is not taken
//! for a model.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use hf_hub::api::sync::{Api, ApiError};
use hf_hub::{Repo, RepoType};
use iiet_files::{hub_api, hub_cache};
use sha2::{Digest, Sha256};

use crate::ModelError;

/// Whether a text has the form of a model's name on the hub, `owner/name`.
pub fn is_hub_name(text: &str) -> bool {
    let part = |part: &str| {
        let letters = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && part.chars().all(letters) && !part.starts_with('.')
    };
    text.split_once('/')
        .is_some_and(|(owner, name)| part(owner) && part(name))
}

/// Fetches the newest revision of a model of the hub, unless it is in the cache, and returns its directory.
///
/// If the hub cannot be reached, or `HF_HUB_OFFLINE` forbids it, the revision in the cache is used. A token is read from
/// `HF_TOKEN` or the file that `hf auth login` writes.
///
/// # Errors
///
/// [`ModelError::Hub`] if it is neither there nor in the cache.
pub fn fetch_model(name: &str) -> Result<PathBuf, ModelError> {
    fetch(name).or_else(|reason| {
        cached(name).ok_or_else(|| ModelError::Hub {
            name: name.to_owned(),
            reason,
        })
    })
}

fn fetch(name: &str) -> Result<PathBuf, String> {
    let api = hub_api()?;
    let main = Repo::model(name.to_owned());
    let info = api.repo(main.clone()).info().map_err(reason)?;
    let files = info.siblings.into_iter().map(|file| file.rfilename);
    for file in files.filter(|file| belongs(file)) {
        fetch_file(&api, name, &info.sha, &file).map_err(|reason| format!("{file}: {reason}"))?;
    }
    let cache = hub_cache().repo(main);
    let known = cache.create_ref(&info.sha);
    known.map_err(|error| format!("writing to the cache failed: {error}"))?;
    Ok(cache.pointer_path(&info.sha))
}

/// Fetches one file of a revision, unless it is in the cache, as the same file of another revision may be.
fn fetch_file(api: &Api, name: &str, revision: &str, file: &str) -> Result<(), String> {
    let pinned = Repo::with_revision(name.to_owned(), RepoType::Model, revision.to_owned());
    let cache = hub_cache().repo(pinned.clone());
    let path = cache.pointer_path(revision).join(file);
    if path.exists() {
        return Ok(());
    }
    let repository = api.repo(pinned);
    let remote = api.metadata(&repository.url(file)).map_err(reason)?;
    let expected = remote.size() as u64;
    let blob = cache.blob_path(remote.etag());
    if length(&blob) == Some(expected) {
        return fs::create_dir_all(cache.pointer_path(revision))
            .and_then(|()| fs::hard_link(&blob, &path))
            .map_err(|error| error.to_string());
    }
    // hf-hub goes on where a part ends, and would ask for nothing after a part that is complete.
    let part = blob.with_extension("part");
    if length(&part).is_some_and(|length| length >= expected) {
        fs::remove_file(&part).map_err(|error| error.to_string())?;
    }
    repository.download(file).map_err(reason)?;
    // hf-hub compares neither length nor content, and a file in the cache is not fetched again.
    check(&path, expected, remote.etag()).inspect_err(|_| {
        for file in [&path, &blob] {
            fs::remove_file(file).ok();
        }
    })
}

/// Compares a file with what the hub says of it. The hub names large files, the weights, by their SHA-256.
fn check(file: &Path, expected: u64, etag: &str) -> Result<(), String> {
    let length = length(file).unwrap_or(0);
    if length != expected {
        return Err(format!("{length} of {expected} bytes arrived"));
    }
    let named_by_hash = etag.len() == 64 && etag.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !named_by_hash {
        return Ok(());
    }
    let mut hash = Sha256::new();
    let mut read = || io::copy(&mut File::open(file)?, &mut hash);
    read().map_err(|error| error.to_string())?;
    let hash = format!("{:x}", hash.finalize());
    match hash.eq_ignore_ascii_case(etag) {
        true => Ok(()),
        false => Err(format!("arrived with SHA-256 {hash}; expected {etag}")),
    }
}

fn length(file: &Path) -> Option<u64> {
    fs::metadata(file).ok().map(|metadata| metadata.len())
}

fn reason(error: ApiError) -> String {
    let text = error.to_string();
    // The hub answers 401, not 404, for a name that it does not have.
    match text.ends_with("http status: 401") || text.ends_with("http status: 403") {
        true => format!(
            "{text}: no model has that name, or it needs a token that has access, in HF_TOKEN"
        ),
        false => text,
    }
}

/// A directory of the cache that has a configuration and weights.
fn cached(name: &str) -> Option<PathBuf> {
    let repository = hub_cache().repo(Repo::model(name.to_owned()));
    let weights = ["model.safetensors", "model.safetensors.index.json"];
    weights.into_iter().find_map(|file| repository.get(file))?;
    Some(folder(&repository.get("config.json")?))
}

/// Configurations, tokenizer, weights, and the Python files that the manifest lists, which are not run; not the same
/// weights in other formats.
fn belongs(file: &str) -> bool {
    let ends = [".json", ".safetensors", ".jinja", ".py", "tokenizer.model"];
    !file.contains('/')
        && !file.starts_with("consolidated")
        && ends.iter().any(|end| file.ends_with(end))
}

fn folder(file: &Path) -> PathBuf {
    file.parent().unwrap_or(Path::new(".")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_paths() {
        for name in ["HuggingFaceTB/SmolLM2-135M", "org/name_1.5"] {
            assert!(is_hub_name(name), "{name}");
        }
        for path in [
            "model",
            "./model",
            "../x",
            "a/b/c",
            "/a/b",
            "a/",
            "runs/my model",
        ] {
            assert!(!is_hub_name(path), "{path}");
        }
    }

    #[test]
    fn of_the_files_only_those_of_a_model_are_fetched() {
        let files = [
            "config.json",
            "model-00001-of-00002.safetensors",
            "consolidated.safetensors",
            "pytorch_model.bin",
            "onnx/model.onnx",
            "original/params.json",
            "chat_template.jinja",
            "tokenizer.model",
            "modeling_iiet.py",
            "README.md",
        ];
        let kept: Vec<&str> = files.into_iter().filter(|file| belongs(file)).collect();
        assert_eq!(
            kept,
            [
                "config.json",
                "model-00001-of-00002.safetensors",
                "chat_template.jinja",
                "tokenizer.model",
                "modeling_iiet.py"
            ]
        );
    }
}
