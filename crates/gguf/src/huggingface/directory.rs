//! Reading a model directory: its configuration, and its weights one tensor at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use iiet_compress::{PackedMatrix, QuantizationConfig, Scheme};
use iiet_files::{Manifest, read_regular, read_regular_text};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::packed::{PACKED, PackedTensors};
use super::safetensors::{Entry, SafetensorsFile};
use super::{
    CHAT_TEMPLATE, CONFIG, GENERATION_CONFIG, INDEX, TOKENIZER, TOKENIZER_CONFIG, WEIGHTS,
};
use crate::GgufError;
use crate::blocks::dequantize;
use crate::llama::LlamaSizes;
use crate::tensors::TensorType;

/// An open directory.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    sizes: LlamaSizes,
    files: Vec<SafetensorsFile>,
    weights: BTreeMap<String, Weight>,
}

/// A tensor, with the number of its file.
pub(super) type Place = (usize, Entry);

/// A weight in the files.
#[derive(Debug)]
enum Weight {
    Floats(Place, TensorType),
    Packed(Box<PackedTensors>),
}

/// The values of a weight.
#[derive(Debug, PartialEq)]
pub(crate) enum Values {
    Floats(Vec<f32>),
    Packed(PackedMatrix),
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
        let keys = text(&config)?;
        let mut sizes = LlamaSizes::from_json(&keys, &config)?;
        let scheme = scheme(&keys, &config)?;
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
        let weights = weights(tensors, scheme, path)?;
        Ok(Self {
            path: path.to_owned(),
            sizes,
            weights,
            files,
        })
    }

    /// The configuration.
    pub(crate) fn sizes(&self) -> &LlamaSizes {
        &self.sizes
    }

    /// The scheme of the packed matrices, if there are any.
    pub(crate) fn scheme(&self) -> Option<Scheme> {
        self.weights.values().find_map(|weight| match weight {
            Weight::Floats(..) => None,
            Weight::Packed(tensors) => Some(tensors.scheme()),
        })
    }

    /// The names of all weights, those of packed matrices as if they were not.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.weights.keys().cloned().collect()
    }

    /// Whether a weight is a packed matrix.
    pub(crate) fn is_packed(&self, name: &str) -> bool {
        matches!(self.weights.get(name), Some(Weight::Packed(..)))
    }

    /// The sizes of a weight.
    pub(crate) fn shape(&self, name: &str) -> Option<Vec<u64>> {
        self.weights.get(name).map(|weight| match weight {
            Weight::Floats((_, entry), _) => entry.shape.clone(),
            Weight::Packed(tensors) => tensors.widths().to_vec(),
        })
    }

    /// The values of a weight.
    pub(crate) fn read(&mut self, name: &str) -> Result<Values, GgufError> {
        let Some(weight) = self.weights.get(name) else {
            return Err(GgufError::Tensor {
                path: self.path.clone(),
                name: name.to_owned(),
                reason: "is not in the directory".into(),
            });
        };
        let mut bytes = |(file, entry): &Place| self.files[*file].read(entry);
        match weight {
            Weight::Floats(place, kind) => Ok(Values::Floats(dequantize(*kind, &bytes(place)?))),
            Weight::Packed(tensors) => {
                let refuse = GgufError::packed(&self.path, name);
                tensors.read(bytes, refuse).map(Values::Packed)
            }
        }
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

/// How the `quantization_config` in the text of a `config.json` says that matrices are packed.
fn scheme(config: &str, path: &Path) -> Result<Option<Scheme>, GgufError> {
    let keys: Map<String, Value> = serde_json::from_str(config).map_err(GgufError::json(path))?;
    let found = keys.get("quantization_config").filter(|v| !v.is_null());
    let read = found.map(QuantizationConfig::from_json).transpose();
    let read = read.map_err(|source| GgufError::Quantization {
        path: path.to_owned(),
        source,
    })?;
    Ok(read.map(|config| config.scheme))
}

/// The weights that tensors are, or are parts of.
fn weights(
    mut tensors: BTreeMap<String, Place>,
    scheme: Option<Scheme>,
    path: &Path,
) -> Result<BTreeMap<String, Weight>, GgufError> {
    let refuse = |name: String, reason: String| GgufError::Tensor {
        path: path.to_owned(),
        name,
        reason,
    };
    let mut weights = BTreeMap::new();
    let names = tensors.keys().filter_map(|name| name.strip_suffix(PACKED));
    let packed: Vec<String> = names.map(str::to_owned).collect();
    for name in packed {
        let scheme = scheme.ok_or_else(|| {
            let reason = format!("is packed; allowed with a quantization_config in {CONFIG}");
            refuse(name.clone(), reason)
        })?;
        let parts = PackedTensors::take(&name, scheme, &mut tensors);
        let parts = parts.map_err(GgufError::packed(path, &name))?;
        weights.insert(name, Weight::Packed(Box::new(parts)));
    }
    for (name, place) in tensors {
        let dtype = place.1.dtype;
        let Some(kind) = dtype.floats() else {
            let found = dtype.name();
            let reason = format!("is of type {found}; allowed: F32, F16, BF16");
            return Err(refuse(name, reason));
        };
        if weights.contains_key(&name) {
            return Err(refuse(name, "is there as floats and packed".into()));
        }
        weights.insert(name, Weight::Floats(place, kind));
    }
    Ok(weights)
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
