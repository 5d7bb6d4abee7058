//! Models of the Hugging Face hub, by name.
//!
//! Fetched files stay in the hub's own cache (`HF_HOME`), where `transformers` finds them too.

use std::path::{Path, PathBuf};

use hf_hub::api::sync::{ApiBuilder, ApiError};
use hf_hub::{Cache, Repo};

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

/// Fetches a model of the hub, unless it is in the cache, and returns its directory.
///
/// # Errors
///
/// [`ModelError::Hub`] if it is neither there nor in the cache.
pub fn fetch_model(name: &str) -> Result<PathBuf, ModelError> {
    fetch(name).or_else(|error| {
        cached(name).ok_or_else(|| ModelError::Hub {
            name: name.to_owned(),
            reason: error.to_string(),
        })
    })
}

fn fetch(name: &str) -> Result<PathBuf, ApiError> {
    let api = ApiBuilder::from_env().build()?;
    let repository = api.model(name.to_owned());
    let files = repository.info()?.siblings.into_iter();
    let config = repository.get("config.json")?;
    for file in files
        .map(|file| file.rfilename)
        .filter(|file| belongs(file))
    {
        repository.get(&file)?;
    }
    Ok(folder(&config))
}

/// A directory of the cache that has a configuration and weights.
fn cached(name: &str) -> Option<PathBuf> {
    let repository = Cache::from_env().repo(Repo::model(name.to_owned()));
    let weights = ["model.safetensors", "model.safetensors.index.json"];
    weights.into_iter().find_map(|file| repository.get(file))?;
    Some(folder(&repository.get("config.json")?))
}

/// Configurations, tokenizer and weights; not the same weights in other formats.
fn belongs(file: &str) -> bool {
    let ends = [".json", ".safetensors", ".jinja", "tokenizer.model"];
    !file.contains('/') && ends.iter().any(|end| file.ends_with(end))
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
            "pytorch_model.bin",
            "onnx/model.onnx",
            "original/params.json",
            "chat_template.jinja",
            "tokenizer.model",
            "README.md",
        ];
        let kept: Vec<&str> = files.into_iter().filter(|file| belongs(file)).collect();
        assert_eq!(
            kept,
            [
                "config.json",
                "model-00001-of-00002.safetensors",
                "chat_template.jinja",
                "tokenizer.model"
            ]
        );
    }
}
