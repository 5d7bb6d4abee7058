//! The files of a model directory, their comparison with the manifest, and their tensors.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use iiet_compress::QuantizationConfig;
use iiet_files::{Manifest, open_regular, read_regular};
use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde::Deserialize;

use super::{CONFIG, GENERATION_CONFIG, INDEX, ModelKind, SavedModel, WEIGHTS};
use crate::ModelError;
use crate::config::{is_encoder_decoder, quantisation_from_json};

/// A model directory and its expected content.
pub(super) struct Directory<'a> {
    pub(super) path: &'a Path,
    manifest: Option<Manifest>,
    /// The shard of each tensor; empty if there is a single file.
    weight_map: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl<'a> Directory<'a> {
    pub(super) fn open(path: &'a Path) -> Result<Self, ModelError> {
        let manifest = Manifest::read(path)?;
        Ok(Self {
            path,
            manifest,
            weight_map: BTreeMap::new(),
        })
    }

    pub(super) fn config<M: SavedModel>(&self) -> Result<M::Config, ModelError> {
        let config = M::config_from_json(&self.text(CONFIG)?, &self.path.join(CONFIG))?;
        let path = self.path.join(GENERATION_CONFIG);
        match path.exists() || path.is_symlink() {
            true => M::with_generation_json(config, &self.text(GENERATION_CONFIG)?, &path),
            false => Ok(config),
        }
    }

    /// What `config.json` says of packed matrices, if there are any.
    pub(super) fn quantisation(&self) -> Result<Option<QuantizationConfig>, ModelError> {
        quantisation_from_json(&self.text(CONFIG)?, &self.path.join(CONFIG))
    }

    pub(super) fn kind(&self) -> Result<ModelKind, ModelError> {
        let encoder_decoder = is_encoder_decoder(&self.text(CONFIG)?, &self.path.join(CONFIG))?;
        Ok(match encoder_decoder {
            true => ModelKind::EncoderDecoder,
            false => ModelKind::LanguageModel,
        })
    }

    /// A file's text, verified against the manifest.
    fn text(&self, name: &str) -> Result<String, ModelError> {
        let path = self.path.join(name);
        let text = read_regular(&path).map_err(ModelError::io(&path))?;
        self.check(name, &text)?;
        String::from_utf8(text).map_err(|error| {
            let source = std::io::Error::new(std::io::ErrorKind::InvalidData, error.utf8_error());
            ModelError::Io { path, source }
        })
    }

    fn check(&self, name: &str, bytes: &[u8]) -> Result<(), ModelError> {
        match &self.manifest {
            // This file may come from another tool, added to a directory written here.
            Some(manifest) if name == GENERATION_CONFIG && !manifest.contains(name) => Ok(()),
            Some(manifest) => Ok(manifest.check(self.path, name, bytes)?),
            None => Ok(()),
        }
    }

    /// The single weight file, or the shards listed in the index, memory-mapped and verified.
    pub(super) fn weights(&mut self) -> Result<Vec<(String, Mmap)>, ModelError> {
        let mut files = Vec::new();
        for name in self.weight_files()? {
            let path = self.path.join(&name);
            let file = open_regular(&path).map_err(ModelError::io(&path))?;
            // SAFETY: the map is read-only and dropped before `load` returns. If another process
            // truncates the file meanwhile, access can still fault, as in every memory-mapped
            // loader.
            let map = unsafe { Mmap::map(&file) }.map_err(ModelError::io(&path))?;
            self.check(&name, &map)?;
            files.push((name, map));
        }
        Ok(files)
    }

    /// The bytes of all weight files.
    pub(super) fn weight_bytes(&mut self) -> Result<u64, ModelError> {
        let mut bytes = 0;
        for name in self.weight_files()? {
            let path = self.path.join(name);
            bytes += std::fs::metadata(&path)
                .map_err(ModelError::io(&path))?
                .len();
        }
        Ok(bytes)
    }

    fn weight_files(&mut self) -> Result<BTreeSet<String>, ModelError> {
        let single = self.path.join(WEIGHTS);
        if single.exists() || single.is_symlink() {
            return Ok([WEIGHTS.to_owned()].into());
        }
        let path = self.path.join(INDEX);
        if !path.exists() {
            let path = self.path.to_owned();
            return Err(ModelError::NoWeights { path });
        }
        let index: Index = match serde_json::from_str(&self.text(INDEX)?) {
            Ok(index) => index,
            Err(source) => return Err(ModelError::Json { path, source }),
        };
        self.weight_map = index.weight_map;
        let shards: BTreeSet<String> = self.weight_map.values().cloned().collect();
        for shard in &shards {
            // An index must not refer to files outside its directory.
            if Path::new(shard).file_name() != Some(shard.as_ref()) {
                let reason = format!(
                    "weight_map names {shard:?}; allowed: files in the directory of the index"
                );
                return Err(ModelError::Index { path, reason });
            }
        }
        Ok(shards)
    }

    /// The tensors of all shards by name. Each must be in exactly one shard, the one listed in the
    /// index.
    pub(super) fn tensors<'t, 'data: 't>(
        &self,
        shards: impl Iterator<Item = (&'t str, &'t SafeTensors<'data>)>,
    ) -> Result<BTreeMap<&'t str, TensorView<'data>>, ModelError> {
        let refuse = |reason| {
            let path = self.path.join(INDEX);
            Err(ModelError::Index { path, reason })
        };
        let mut found: BTreeMap<&str, (&str, TensorView<'_>)> = BTreeMap::new();
        for (file, shard) in shards {
            for (name, view) in shard.iter().filter(|(name, _)| !is_derived(name)) {
                if let Some((first, _)) = found.insert(name, (file, view)) {
                    return refuse(format!(
                        "{name} is in both {first} and {file}; allowed: in one of them"
                    ));
                }
                match self.weight_map.get(name) {
                    Some(listed) if listed != file => {
                        return refuse(format!(
                            "weight_map lists {name} in {listed}, but it is in {file}"
                        ));
                    }
                    None if !self.weight_map.is_empty() => {
                        return refuse(format!(
                            "weight_map does not list {name}, which is in {file}"
                        ));
                    }
                    _ => {}
                }
            }
        }
        let views = found.into_iter().map(|(name, (_, view))| (name, view));
        Ok(views.collect())
    }

    /// Verifies the files that `load` does not read: the tokenizer, an optimizer's state.
    pub(super) fn verify_other_files(&self, read: &[(String, Mmap)]) -> Result<(), ModelError> {
        let Some(manifest) = &self.manifest else {
            return Ok(());
        };
        let seen = |name: &str| name == CONFIG || read.iter().any(|(file, _)| file == name);
        let others = manifest.files().map(|(name, _)| name);
        Ok(manifest.verify(self.path, others.filter(|name| !seen(name)))?)
    }
}

/// Rotary frequencies, which old LLaMA checkpoints store although they follow from the sizes.
fn is_derived(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq")
}
