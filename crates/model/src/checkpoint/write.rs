//! Writing a model directory.
//!
//! Every file is written atomically, and the manifest last. While the files of an existing directory are
//! being replaced, its manifest marks it as incomplete.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use burn::module::Param;
use burn::tensor::Tensor;
use half::{bf16, f16};
use iiet_files::{FileRecord, Manifest, write_file};
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, View};
use serde::Serialize;
use serde_json::Value;

use super::finite::limit;
use super::packed::packed_tensors;
use super::read::{stored_shape, transposed};
use super::{CONFIG, INDEX, SavedModel, WEIGHTS};
use crate::names::{ParameterVisitor, visit_parameters};
use crate::{ModelError, Precision, Role};

/// Options for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaveOptions {
    /// The dtype of all tensors, to which they are rounded; a value outside its range is an error.
    pub stored: Precision,
    /// Weights larger than this many bytes are split into several files.
    pub max_shard_bytes: u64,
}

impl Default for SaveOptions {
    /// f32 in files of at most 5 GB, like other tools.
    fn default() -> Self {
        Self {
            stored: Precision::F32,
            max_shard_bytes: 5_000_000_000,
        }
    }
}

/// Writes `config.json`, the weights and their manifest into a directory, which is created if necessary.
/// Other files in it are kept. The manifest is returned for callers that add files.
///
/// A model that `transformers` does not know, LLaMA's block under another solver than explicit Euler, is
/// written with the Python files that load it there.
///
/// # Errors
///
/// [`ModelError::NotFinite`] if a weight is non-finite, or would be in the dtype on disk; [`ModelError::Io`]
/// or [`ModelError::Safetensors`] with the file that could not be written.
pub fn save<M: SavedModel>(
    model: &M,
    dir: &Path,
    options: &SaveOptions,
) -> Result<Manifest, ModelError> {
    let mut collect = Collect {
        stored: options.stored,
        tensors: Vec::new(),
        not_finite: None,
    };
    visit_parameters(model, &mut collect);
    let packed = packed_tensors(model, dir)?;
    if let Some((name, value)) = collect.not_finite {
        return Err(ModelError::NotFinite {
            path: dir.to_owned(),
            name,
            value,
            stored: options.stored,
        });
    }
    fs::create_dir_all(dir).map_err(ModelError::io(dir))?;
    Manifest::begin(dir)?;
    let mut manifest = Manifest::new();
    let (quantisation, packed) = packed.unzip();
    collect.tensors.extend(packed.unwrap_or_default());
    let shards = split(collect.tensors, options.max_shard_bytes);
    match shards.as_slice() {
        [only] => {
            manifest.add(WEIGHTS, write_weights(&dir.join(WEIGHTS), only)?);
            remove_if_present(&dir.join(INDEX))?;
        }
        _ => {
            write_shards(dir, &shards, &mut manifest)?;
            remove_if_present(&dir.join(WEIGHTS))?;
        }
    }
    let mut config = model.write_config(dir, &mut manifest)?;
    if let Some(quantisation) = quantisation {
        config = with_key(&config, "quantization_config", quantisation.to_json());
    }
    manifest.add(CONFIG, write_text(&dir.join(CONFIG), &config)?);
    manifest.write(dir)?;
    Ok(manifest)
}

/// The text of a `config.json` with another key, in alphabetical order.
fn with_key(config: &str, key: &str, value: Value) -> String {
    let keys = serde_json::from_str(config);
    let mut keys: BTreeMap<String, Value> = keys.expect("invariant: written as a table");
    keys.insert(key.to_owned(), value);
    serde_json::to_string_pretty(&keys).expect("invariant: plain data serialises") + "\n"
}

/// One tensor as it is written to disk.
pub(super) struct Stored {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    /// The bytes of the file, read from the device when needed, so that only one tensor is held in memory at a
    /// time.
    bytes: Box<dyn Fn() -> Vec<u8>>,
}

impl Stored {
    pub(super) fn of_bytes(
        name: String,
        dtype: Dtype,
        shape: Vec<usize>,
        bytes: impl Fn() -> Vec<u8> + 'static,
    ) -> Self {
        let bytes = Box::new(bytes);
        Self {
            name,
            dtype,
            shape,
            bytes,
        }
    }

    /// Values that are rounded to a precision.
    fn of_values(
        name: String,
        stored: Precision,
        shape: Vec<usize>,
        values: impl Fn() -> Vec<f32> + 'static,
    ) -> Self {
        let dtype = match stored {
            Precision::F32 => Dtype::F32,
            Precision::Bf16 => Dtype::BF16,
            Precision::F16 => Dtype::F16,
        };
        Self::of_bytes(name, dtype, shape, move || {
            let values = values();
            let values = values.iter();
            match stored {
                Precision::F32 => values.flat_map(|x| x.to_le_bytes()).collect(),
                Precision::Bf16 => values
                    .flat_map(|x| bf16::from_f32(*x).to_le_bytes())
                    .collect(),
                Precision::F16 => values
                    .flat_map(|x| f16::from_f32(*x).to_le_bytes())
                    .collect(),
            }
        })
    }
}

impl View for &Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned((self.bytes)())
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

struct Collect {
    stored: Precision,
    tensors: Vec<Stored>,
    /// The first parameter with a value that is not finite in the dtype on disk, and the value.
    not_finite: Option<(String, f32)>,
}

impl ParameterVisitor for Collect {
    fn visit<const D: usize>(&mut self, name: &str, role: Role, parameter: &Param<Tensor<D>>) {
        let tensor = parameter.val();
        let dims = tensor.dims();
        if self.not_finite.is_none() {
            let limit = limit(self.stored);
            let values = values_of(&tensor);
            // The comparison is also false for NaN.
            let fits = |x: &f32| x.abs() < limit;
            let misfit = values.iter().find(|x| !fits(x));
            self.not_finite = misfit.map(|value| (name.to_owned(), *value));
        }
        let shape = stored_shape(role, &dims);
        let values = move || match (role.transposed, dims.as_slice()) {
            (true, [rows, columns]) => transposed(&values_of(&tensor), *rows, *columns),
            _ => values_of(&tensor),
        };
        self.tensors
            .push(Stored::of_values(name.into(), self.stored, shape, values));
    }
}

/// A parameter's values from the device.
pub(crate) fn values_of<const D: usize>(tensor: &Tensor<D>) -> Vec<f32> {
    let values = tensor.clone().try_into_vec_as::<f32>();
    values.expect("invariant: float tensors can be read as f32")
}

/// Consecutive tensors, grouped such that each group is within the limit unless it is a single tensor.
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

fn write_shards(
    dir: &Path,
    shards: &[Vec<Stored>],
    manifest: &mut Manifest,
) -> Result<(), ModelError> {
    let names: Vec<String> = (1..=shards.len())
        .map(|i| format!("model-{i:05}-of-{:05}.safetensors", shards.len()))
        .collect();
    let mut weight_map = BTreeMap::new();
    let mut total_size = 0;
    for (file, tensors) in names.iter().zip(shards) {
        manifest.add(file, write_weights(&dir.join(file), tensors)?);
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
    manifest.add(INDEX, write_text(&dir.join(INDEX), &index)?);
    Ok(())
}

fn write_weights(path: &Path, tensors: &[Stored]) -> Result<FileRecord, ModelError> {
    let views = tensors.iter().map(|tensor| (tensor.name.clone(), tensor));
    write_safetensors(path, views.collect())
}

/// Writes a safetensors file atomically, with one tensor in memory at a time, and returns its record.
///
/// The bytes equal those of `safetensors::serialize` for tensors of one dtype, ordered by name.
///
/// # Errors
///
/// [`ModelError::Io`] or [`ModelError::Safetensors`].
pub fn write_safetensors<V: View>(
    path: &Path,
    mut tensors: Vec<(String, V)>,
) -> Result<FileRecord, ModelError> {
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut end = 0;
    let infos = tensors.iter().map(|(name, tensor)| {
        let start = end;
        end += tensor.data_len();
        let info = TensorInfo {
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
            data_offsets: (start, end),
        };
        (name.clone(), info)
    });
    // Other tools require the format in the header's metadata.
    let metadata = Some([("format".to_string(), "pt".to_string())].into());
    let header =
        Metadata::new(metadata, infos.collect()).map_err(|source| ModelError::Safetensors {
            path: path.to_owned(),
            source,
        })?;
    let mut header = serde_json::to_vec(&header).expect("invariant: plain data serialises");
    // Padding aligns the data.
    header.resize(header.len().next_multiple_of(size_of::<u64>()), b' ');
    write_file(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        tensors
            .iter()
            .try_for_each(|(_, tensor)| file.write_all(&tensor.data()))
    })
    .map_err(ModelError::io(path))
}

pub(super) fn write_text(path: &Path, text: &str) -> Result<FileRecord, ModelError> {
    write_file(path, |file| file.write_all(text.as_bytes())).map_err(ModelError::io(path))
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
