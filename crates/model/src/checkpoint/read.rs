//! Reading a model directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use half::{bf16, f16};
use iiet_files::{Manifest, open_regular, read_regular};
use memmap2::Mmap;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::finite::first_misfit;
use super::{CONFIG, GENERATION_CONFIG, INDEX, WEIGHTS, parse_safetensors};
use crate::names::{
    ParameterMapper, ParameterVisitor, Role, map_parameters, visit_parameters, with_value,
};
use crate::{LanguageModel, ModelConfig, ModelError, Precision, TensorFault};

/// Reads a model directory, in f32 whatever the type on disk.
///
/// If the directory has a manifest, every file in it is compared with it: those that are read here
/// and those beside them, such as the tokenizer.
///
/// # Errors
///
/// [`ModelError`]: an unreadable or unsupported configuration, a damaged weight file, a file that
/// the manifest does not record, a tensor with a NaN or an infinity, or one error that lists every
/// missing, surplus and misshapen tensor by name.
pub fn load(dir: &Path, device: &Device) -> Result<(LanguageModel, ModelConfig), ModelError> {
    load_in(Precision::F32, dir, device)
}

/// Reads a model directory as [`load`] does, with the matrices in a precision, whatever the type on
/// disk; at no time are there more than one of them in f32.
///
/// # Errors
///
/// As [`load`]; [`ModelError::Precision`] if the device does not compute with it. A weight beyond its
/// range is refused like an infinity.
pub fn load_in(
    precision: Precision,
    dir: &Path,
    device: &Device,
) -> Result<(LanguageModel, ModelConfig), ModelError> {
    if !precision.works_on(device) {
        return Err(ModelError::Precision { precision });
    }
    let mut dir = Directory::open(dir)?;
    let config = dir.config()?;
    let files = dir.weights()?;
    dir.verify_the_others(&files)?;
    let path = dir.path.to_owned();

    let mut parsed = Vec::with_capacity(files.len());
    for (name, bytes) in &files {
        parsed.push(parse_safetensors(&path.join(name), bytes)?);
    }
    let shards = files.iter().map(|(file, _)| file.as_str()).zip(&parsed);
    let weights = dir.tensors(shards)?;
    if config.n_layers > weights.len() {
        // Even a layer without memory yet takes some; a configuration alone must not take it all.
        let (layers, tensors) = (config.n_layers, weights.len());
        return Err(ModelError::Layers {
            path,
            layers,
            tensors,
        });
    }
    let model = LanguageModel::empty(&config, device)?;

    let mut check = Check::new(&weights, precision);
    visit_parameters(&model, &mut check);
    let stored = std::mem::take(&mut check.stored);
    let faults = check.finish(&config);
    if !faults.is_empty() {
        return Err(ModelError::Tensors { path, faults });
    }
    check_finite(&path, &weights, &stored)?;
    let mut fill = Fill {
        weights,
        precision,
        device: device.clone(),
    };
    let model = map_parameters(model, &mut fill);
    Ok((model, config))
}

/// Reads the `config.json` of a model directory, and the tokens that end a text from its
/// `generation_config.json` if it has one: chat models name there what ends an answer.
///
/// # Errors
///
/// [`ModelError`] if it is missing, malformed, unsupported or impossible, or not the one that the
/// manifest records.
pub fn load_config(dir: &Path) -> Result<ModelConfig, ModelError> {
    Directory::open(dir)?.config()
}

/// A model directory and what it should hold.
struct Directory<'a> {
    path: &'a Path,
    manifest: Option<Manifest>,
    /// Which shard holds which tensor; empty where all are in one file.
    weight_map: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl<'a> Directory<'a> {
    fn open(path: &'a Path) -> Result<Self, ModelError> {
        let manifest = Manifest::read(path)?;
        Ok(Self {
            path,
            manifest,
            weight_map: BTreeMap::new(),
        })
    }

    fn config(&self) -> Result<ModelConfig, ModelError> {
        let config = ModelConfig::from_json(&self.text(CONFIG)?, &self.path.join(CONFIG))?;
        let path = self.path.join(GENERATION_CONFIG);
        match path.exists() {
            true => config.with_generation_json(&self.text(GENERATION_CONFIG)?, &path),
            false => Ok(config),
        }
    }

    /// A file's text, compared with the manifest.
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
            // Other tools' file, which may have been laid beside ours.
            Some(manifest) if name == GENERATION_CONFIG && !manifest.contains(name) => Ok(()),
            Some(manifest) => Ok(manifest.check(self.path, name, bytes)?),
            None => Ok(()),
        }
    }

    /// The single weight file, or the shards that the index names, mapped and compared.
    fn weights(&mut self) -> Result<Vec<(String, Mmap)>, ModelError> {
        let mut files = Vec::new();
        for name in self.weight_files()? {
            let path = self.path.join(&name);
            let file = open_regular(&path).map_err(ModelError::io(&path))?;
            // SAFETY: the map is read-only and dropped before `load` returns. A file that another
            // process shortens meanwhile can still fault, as with every memory-mapped loader.
            let map = unsafe { Mmap::map(&file) }.map_err(ModelError::io(&path))?;
            self.check(&name, &map)?;
            files.push((name, map));
        }
        Ok(files)
    }

    fn weight_files(&mut self) -> Result<BTreeSet<String>, ModelError> {
        if self.path.join(WEIGHTS).exists() {
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
            // An index must not reach outside its directory.
            if Path::new(shard).file_name() != Some(shard.as_ref()) {
                let reason = format!("weight_map names {shard:?}; allowed: files beside the index");
                return Err(ModelError::Index { path, reason });
            }
        }
        Ok(shards)
    }

    /// The tensors of all shards by name: each in one shard only, and where the index says.
    fn tensors<'t, 'data: 't>(
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
                        "{name} is both in {first} and in {file}; allowed: in one of them"
                    ));
                }
                match self.weight_map.get(name) {
                    Some(listed) if listed != file => {
                        return refuse(format!(
                            "weight_map places {name} in {listed}, and it is in {file}"
                        ));
                    }
                    None if !self.weight_map.is_empty() => {
                        return refuse(format!(
                            "weight_map does not name {name}, which is in {file}"
                        ));
                    }
                    _ => {}
                }
            }
        }
        let views = found.into_iter().map(|(name, (_, view))| (name, view));
        Ok(views.collect())
    }

    /// Compares the files that `load` does not read: the tokenizer, an optimizer's state.
    fn verify_the_others(&self, read: &[(String, Mmap)]) -> Result<(), ModelError> {
        let Some(manifest) = &self.manifest else {
            return Ok(());
        };
        let seen = |name: &str| name == CONFIG || read.iter().any(|(file, _)| file == name);
        let others = manifest.files().map(|(name, _)| name);
        Ok(manifest.verify(self.path, others.filter(|name| !seen(name)))?)
    }
}

/// Rotary frequencies, which old LLaMA checkpoints store though they follow from the sizes.
fn is_derived(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq")
}

/// Refuses tensors with elements that are non-finite in the precision they are to be read in.
fn check_finite(
    path: &Path,
    weights: &BTreeMap<&str, TensorView<'_>>,
    stored: &[(String, Precision)],
) -> Result<(), ModelError> {
    let misfits = stored.iter().filter_map(|(name, precision)| {
        let misfit = first_misfit(&weights[name.as_str()], *precision)?;
        Some((name, misfit, *precision))
    });
    let mut misfits: Vec<_> = misfits.collect();
    misfits.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    match misfits.first() {
        None => Ok(()),
        Some((name, (element, value), precision)) => Err(ModelError::NonFiniteWeights {
            path: path.to_owned(),
            name: (*name).clone(),
            element: *element,
            value: *value,
            precision: *precision,
            tensors: misfits.len(),
        }),
    }
}

/// Compares what the model needs with what the files hold.
struct Check<'a, 'data> {
    weights: &'a BTreeMap<&'a str, TensorView<'data>>,
    precision: Precision,
    /// The type that each tensor is to be read in.
    stored: Vec<(String, Precision)>,
    unused: BTreeSet<&'a str>,
    faults: Vec<TensorFault>,
}

impl<'a, 'data> Check<'a, 'data> {
    fn new(weights: &'a BTreeMap<&'a str, TensorView<'data>>, precision: Precision) -> Self {
        Self {
            weights,
            precision,
            stored: Vec::new(),
            unused: weights.keys().copied().collect(),
            faults: Vec::new(),
        }
    }

    fn finish(mut self, config: &ModelConfig) -> Vec<TensorFault> {
        // Some writers store a tied projection although it is the embedding.
        let (head, embedding) = ("lm_head.weight", "model.embed_tokens.weight");
        if config.tie_embeddings
            && let (Some(head), Some(embedding)) =
                (self.weights.get(head), self.weights.get(embedding))
            && head.data() == embedding.data()
        {
            self.unused.remove("lm_head.weight");
        }
        let surplus = self.unused.iter().map(|name| TensorFault::Surplus {
            name: (*name).into(),
        });
        self.faults.extend(surplus);
        self.faults
    }
}

impl ParameterVisitor for Check<'_, '_> {
    fn visit<const D: usize>(&mut self, name: &str, role: Role, parameter: &Param<Tensor<D>>) {
        let shape = stored_shape(role, &parameter.lazy_shape());
        self.unused.remove(name);
        let name = name.to_owned();
        let Some(view) = self.weights.get(name.as_str()) else {
            self.faults.push(TensorFault::Missing { name, shape });
            return;
        };
        if view.shape() != shape {
            let found = view.shape().to_vec();
            self.faults.push(TensorFault::Shape {
                name,
                found,
                expected: shape,
            });
        } else if ![Dtype::F32, Dtype::BF16, Dtype::F16].contains(&view.dtype()) {
            let found = format!("{:?}", view.dtype());
            self.faults.push(TensorFault::Type { name, found });
        } else {
            self.stored.push((name, role.precision(self.precision)));
        }
    }
}

/// The shape of a parameter on disk.
pub(super) fn stored_shape(role: Role, shape: &[usize]) -> Vec<usize> {
    match role {
        Role::Projection => shape.iter().rev().copied().collect(),
        Role::Embedding | Role::Coefficient => shape.to_vec(),
    }
}

struct Fill<'a> {
    weights: BTreeMap<&'a str, TensorView<'a>>,
    precision: Precision,
    device: Device,
}

impl ParameterMapper for Fill<'_> {
    fn map<const D: usize>(
        &mut self,
        name: &str,
        role: Role,
        parameter: Param<Tensor<D>>,
    ) -> Param<Tensor<D>> {
        let view = &self.weights[name];
        let mut values = to_f32(view);
        let shape = parameter.lazy_shape();
        if let (Role::Projection, [rows, columns]) = (role, view.shape()) {
            values = transposed(&values, *rows, *columns);
        }
        let data = TensorData::new::<f32, _>(values, shape);
        let dtype = role.precision(self.precision).dtype();
        with_value(parameter, data.convert_dtype(dtype), &self.device)
    }
}

/// The elements of a tensor that passed [`Check`].
fn to_f32(view: &TensorView<'_>) -> Vec<f32> {
    let bytes = view.data();
    let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    match view.dtype() {
        Dtype::BF16 => pairs().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
        Dtype::F16 => pairs().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
        _ => bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect(),
    }
}

/// A row-major matrix, transposed tile by tile so that both sides stay in cache.
pub(super) fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const TILE: usize = 32;
    let mut out = vec![0.0; values.len()];
    for row_tile in (0..rows).step_by(TILE) {
        for column_tile in (0..columns).step_by(TILE) {
            for row in row_tile..(row_tile + TILE).min(rows) {
                for column in column_tile..(column_tile + TILE).min(columns) {
                    out[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    out
}
