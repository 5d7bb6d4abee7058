//! Writing a model directory.
//!
//! Every file is written under another name, synced and renamed, so that an interruption leaves
//! either the old file or the new one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use burn::module::Param;
use burn::tensor::Tensor;
use half::{bf16, f16};
use safetensors::{Dtype, View, serialize_to_file};
use serde::Serialize;

use super::read::{stored_shape, transposed};
use super::{CONFIG, INDEX, WEIGHTS};
use crate::names::{ParameterVisitor, Role, visit_parameters};
use crate::{LanguageModel, ModelError};

/// The element type on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredType {
    /// Four bytes, exact.
    F32,
    /// Two bytes, rounded to the nearest.
    Bf16,
    /// Two bytes, rounded to the nearest; beyond 65504 infinite.
    F16,
}

/// How to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaveOptions {
    /// Element type of all tensors.
    pub stored: StoredType,
    /// Weights beyond this many bytes are split into several files.
    pub max_shard_bytes: u64,
}

impl Default for SaveOptions {
    /// f32 in files of at most 5 GB, as other tools do.
    fn default() -> Self {
        Self {
            stored: StoredType::F32,
            max_shard_bytes: 5_000_000_000,
        }
    }
}

/// Writes `config.json` and the weights into a directory, which is created if need be.
///
/// # Errors
///
/// [`ModelError::Io`] or [`ModelError::Safetensors`] with the file that could not be written.
pub fn save(model: &LanguageModel, dir: &Path, options: &SaveOptions) -> Result<(), ModelError> {
    fs::create_dir_all(dir).map_err(|source| ModelError::Io {
        path: dir.to_owned(),
        source,
    })?;
    let mut collect = Collect {
        stored: options.stored,
        tensors: Vec::new(),
    };
    visit_parameters(model, &mut collect);
    let shards = split(collect.tensors, options.max_shard_bytes);
    match shards.as_slice() {
        [only] => {
            write_weights(&dir.join(WEIGHTS), only)?;
            remove_if_present(&dir.join(INDEX))?;
        }
        _ => {
            write_shards(dir, &shards)?;
            remove_if_present(&dir.join(WEIGHTS))?;
        }
    }
    write_atomically(&dir.join(CONFIG), model.config().to_json().as_bytes())
}

/// One parameter as it goes to disk.
struct Stored {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
    stored: StoredType,
}

impl View for &Stored {
    fn dtype(&self) -> Dtype {
        match self.stored {
            StoredType::F32 => Dtype::F32,
            StoredType::Bf16 => Dtype::BF16,
            StoredType::F16 => Dtype::F16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = self.values.iter();
        Cow::Owned(match self.stored {
            StoredType::F32 => values.flat_map(|x| x.to_le_bytes()).collect(),
            StoredType::Bf16 => values
                .flat_map(|x| bf16::from_f32(*x).to_le_bytes())
                .collect(),
            StoredType::F16 => values
                .flat_map(|x| f16::from_f32(*x).to_le_bytes())
                .collect(),
        })
    }

    fn data_len(&self) -> usize {
        self.values.len() * self.stored.bytes()
    }
}

impl StoredType {
    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

struct Collect {
    stored: StoredType,
    tensors: Vec<Stored>,
}

impl ParameterVisitor for Collect {
    fn visit<const D: usize>(&mut self, name: &str, role: Role, parameter: &Param<Tensor<D>>) {
        let tensor = parameter.val();
        let dims = tensor.dims();
        let mut values: Vec<f32> = tensor
            .try_into_vec_as::<f32>()
            .expect("invariant: float tensors can be read as f32");
        if let (Role::Projection, [rows, columns]) = (role, dims.as_slice()) {
            values = transposed(&values, *rows, *columns);
        }
        self.tensors.push(Stored {
            name: name.into(),
            shape: stored_shape(role, &dims),
            values,
            stored: self.stored,
        });
    }
}

/// Consecutive tensors, each group within the limit where a single tensor is.
fn split(tensors: Vec<Stored>, max_bytes: u64) -> Vec<Vec<Stored>> {
    let mut shards: Vec<Vec<Stored>> = vec![Vec::new()];
    let mut bytes = 0;
    for tensor in tensors {
        let size = (&tensor).data_len() as u64;
        let last = shards
            .last_mut()
            .expect("invariant: there is always one shard");
        if bytes + size > max_bytes && !last.is_empty() {
            bytes = 0;
            shards.push(vec![tensor]);
        } else {
            last.push(tensor);
        }
        bytes += size;
    }
    shards
}

#[derive(Serialize)]
struct Index<'a> {
    metadata: BTreeMap<&'static str, u64>,
    weight_map: BTreeMap<&'a str, &'a str>,
}

fn write_shards(dir: &Path, shards: &[Vec<Stored>]) -> Result<(), ModelError> {
    let names: Vec<String> = (1..=shards.len())
        .map(|i| format!("model-{i:05}-of-{:05}.safetensors", shards.len()))
        .collect();
    let mut weight_map = BTreeMap::new();
    let mut total_size = 0;
    for (file, tensors) in names.iter().zip(shards) {
        write_weights(&dir.join(file), tensors)?;
        for tensor in tensors {
            weight_map.insert(tensor.name.as_str(), file.as_str());
            total_size += (&tensor).data_len() as u64;
        }
    }
    let metadata = BTreeMap::from([("total_size", total_size)]);
    let index = serde_json::to_string_pretty(&Index {
        metadata,
        weight_map,
    })
    .expect("invariant: plain data serialises");
    write_atomically(&dir.join(INDEX), index.as_bytes())
}

fn write_weights(path: &Path, tensors: &[Stored]) -> Result<(), ModelError> {
    let io = |source| ModelError::Io {
        path: path.to_owned(),
        source,
    };
    let partial = path.with_extension("safetensors.partial");
    let views = tensors.iter().map(|tensor| (tensor.name.as_str(), tensor));
    // Other readers look for the format in the header's metadata.
    let metadata = Some([("format".to_string(), "pt".to_string())].into());
    serialize_to_file(views, metadata, &partial).map_err(|source| ModelError::Safetensors {
        path: path.to_owned(),
        source,
    })?;
    File::open(&partial)
        .and_then(|file| file.sync_all())
        .map_err(io)?;
    publish(&partial, path).map_err(io)
}

fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    let io = |source| ModelError::Io {
        path: path.to_owned(),
        source,
    };
    let partial = path.with_extension("json.partial");
    let mut file = File::create(&partial).map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    file.sync_all().map_err(io)?;
    publish(&partial, path).map_err(io)
}

fn publish(partial: &Path, path: &Path) -> io::Result<()> {
    fs::rename(partial, path)?;
    // The rename itself is durable once the directory is; not every system can sync one.
    if let Some(Ok(directory)) = path.parent().map(File::open) {
        let _ = directory.sync_all();
    }
    Ok(())
}

fn remove_if_present(path: &Path) -> Result<(), ModelError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            let path = path.to_owned();
            Err(ModelError::Io { path, source })
        }
        _ => Ok(()),
    }
}
