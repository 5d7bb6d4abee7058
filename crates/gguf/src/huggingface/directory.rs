//! Reading a model directory: its configuration, and its weights one tensor at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use iiet_files::{Manifest, read_regular, read_regular_text};
use serde::Deserialize;
use serde_json::Value;

use super::safetensors::{Entry, SafetensorsFile};
use super::{
    CHAT_TEMPLATE, CONFIG, GENERATION_CONFIG, INDEX, TOKENIZER, TOKENIZER_CONFIG, WEIGHTS,
};
use crate::GgufError;
use crate::blocks::dequantize;
use crate::llama::LlamaSizes;

/// An open directory.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    sizes: LlamaSizes,
    files: Vec<SafetensorsFile>,
    /// The tensors, each with the number of its file.
    tensors: BTreeMap<String, (usize, Entry)>,
}

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Directory {
    /// Opens a directory, and compares its files with the manifest if it has one.
    pub(crate) fn open(path: &Path) -> Result<Self, GgufError> {
        if let Some(manifest) = Manifest::read(path)? {
            manifest.verify(path, manifest.files().map(|(name, _)| name))?;
        }
        let config = path.join(CONFIG);
        let mut sizes = LlamaSizes::from_json(&text(&config)?, &config)?;
        let generation = path.join(GENERATION_CONFIG);
        if generation.exists() {
            let ends = LlamaSizes::ends_from_generation_json(&text(&generation)?, &generation)?;
            if !ends.is_empty() {
                sizes.eos_token_ids = ends;
            }
            let checked = sizes.check();
            checked.map_err(|(key, found, allowed)| GgufError::Config {
                path: generation,
                key: key.into(),
                found,
                allowed,
            })?;
        }
        let (mut files, mut tensors) = (Vec::new(), BTreeMap::new());
        for name in weight_files(path)? {
            let at = path.join(name);
            let (file, entries) = SafetensorsFile::open(&at)?;
            for entry in entries {
                // Old checkpoints store the rotary frequencies, which follow from the sizes.
                if entry.name.ends_with(".rotary_emb.inv_freq") {
                    continue;
                }
                let name = entry.name.clone();
                if tensors.insert(name.clone(), (files.len(), entry)).is_some() {
                    let reason = format!("{name} is in another file too");
                    return Err(GgufError::Safetensors { path: at, reason });
                }
            }
            files.push(file);
        }
        Ok(Self {
            path: path.to_owned(),
            sizes,
            files,
            tensors,
        })
    }

    /// The configuration.
    pub(crate) fn sizes(&self) -> &LlamaSizes {
        &self.sizes
    }

    /// The names of all tensors.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.tensors.keys().cloned().collect()
    }

    /// The sizes of a tensor.
    pub(crate) fn shape(&self, name: &str) -> Option<&[u64]> {
        self.tensors
            .get(name)
            .map(|(_, entry)| entry.shape.as_slice())
    }

    /// The values of a tensor.
    pub(crate) fn read_f32(&mut self, name: &str) -> Result<Vec<f32>, GgufError> {
        let Some((file, entry)) = self.tensors.get(name) else {
            return Err(GgufError::Tensor {
                path: self.path.clone(),
                name: name.to_owned(),
                reason: "is not in the directory".into(),
            });
        };
        let bytes = self.files[*file].read(entry)?;
        Ok(dequantize(entry.kind, &bytes))
    }

    /// The bytes of `tokenizer.json`.
    pub(crate) fn tokenizer(&self) -> Result<Vec<u8>, GgufError> {
        let path = self.path.join(TOKENIZER);
        read_regular(&path).map_err(GgufError::io(&path))
    }

    /// The template of chats, if there is one.
    pub(crate) fn chat_template(&self) -> Result<Option<String>, GgufError> {
        let path = self.path.join(CHAT_TEMPLATE);
        if path.exists() {
            return text(&path).map(Some);
        }
        let path = self.path.join(TOKENIZER_CONFIG);
        if !path.exists() {
            return Ok(None);
        }
        let config = text(&path)?;
        let config: Value = serde_json::from_str(&config).map_err(GgufError::json(&path))?;
        Ok(config["chat_template"].as_str().map(str::to_owned))
    }
}

fn text(path: &Path) -> Result<String, GgufError> {
    read_regular_text(path).map_err(GgufError::io(path))
}

/// The single weight file, or those that the index lists.
fn weight_files(path: &Path) -> Result<BTreeSet<String>, GgufError> {
    let index = path.join(INDEX);
    if path.join(WEIGHTS).exists() || !index.exists() {
        return Ok([WEIGHTS.to_owned()].into());
    }
    let Index { weight_map } =
        serde_json::from_str(&text(&index)?).map_err(GgufError::json(&index))?;
    let files: BTreeSet<String> = weight_map.into_values().collect();
    match files
        .iter()
        .find(|name| Path::new(name).file_name() != Some(name.as_ref()))
    {
        None => Ok(files),
        Some(name) => Err(GgufError::Safetensors {
            path: index,
            reason: format!("names {name:?}; allowed: files in the directory of the index"),
        }),
    }
}
