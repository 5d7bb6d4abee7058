//! Checkpoints: everything a run needs to go on as if it had not stopped.
//!
//! A checkpoint is a model directory with `optimizer.safetensors` and `state.json` beside the
//! weights. It is written under another name and renamed when complete, so a folder called
//! `step-N` is whole. Batches and learning rates follow from the step and need no state.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use iiet_data::Tokenizer;
use iiet_model::{
    LanguageModel, ParameterVisitor, Role, SaveOptions, load, save, visit_parameters,
};
use safetensors::{Dtype, SafeTensors, View, serialize_to_file};
use serde::{Deserialize, Serialize};

use crate::optimizer::{ModelAdamW, Moments};
use crate::{RunDirectory, TrainError};

const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
const TOKENIZER: &str = "tokenizer.json";
/// Without it `transformers` takes every tokenizer beside a LLaMA for LLaMA's own.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Position {
    /// Optimiser steps taken.
    pub(crate) step: u64,
    /// Tokens trained on.
    pub(crate) tokens: u64,
    /// Updates that each parameter's moments have seen.
    pub(crate) updates: BTreeMap<String, usize>,
}

/// What [`read`] returns.
pub(crate) struct Checkpoint {
    pub(crate) path: PathBuf,
    pub(crate) position: Position,
    pub(crate) model: LanguageModel,
    pub(crate) moments: BTreeMap<String, Moments>,
}

/// Writes `checkpoints/step-N` and removes all but the newest `keep`.
pub(crate) fn write(
    run: &RunDirectory,
    (step, tokens): (u64, u64),
    model: &LanguageModel,
    optimizer: &ModelAdamW,
    tokenizer: &Tokenizer,
    keep: usize,
) -> Result<PathBuf, TrainError> {
    let folder = run.checkpoints();
    let path = folder.join(format!("step-{step}"));
    let partial = folder.join(format!(".step-{step}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(TrainError::io(&partial))?;
    }
    save(model, &partial, &SaveOptions::default())?;
    save_tokenizer(tokenizer, &partial)?;
    let position = Position {
        step,
        tokens,
        updates: optimizer
            .moments
            .iter()
            .map(|(name, m)| (name.clone(), m.updates))
            .collect(),
    };
    write_moments(&partial.join(OPTIMIZER), &optimizer.moments)?;
    let state = serde_json::to_string_pretty(&position).expect("invariant: plain data serialises");
    fs::write(partial.join(STATE), state).map_err(TrainError::io(partial.join(STATE)))?;
    for name in [TOKENIZER, TOKENIZER_CONFIG, OPTIMIZER, STATE] {
        let file = partial.join(name);
        File::open(&file)
            .and_then(|f| f.sync_all())
            .map_err(TrainError::io(&file))?;
    }
    if path.exists() {
        // The same step again, after a resume from before it: the state is the same.
        fs::remove_dir_all(&path).map_err(TrainError::io(&path))?;
    }
    fs::rename(&partial, &path).map_err(TrainError::io(&path))?;
    if let Ok(directory) = File::open(&folder) {
        // Not every system can sync a directory.
        let _ = directory.sync_all();
    }
    for (_, old) in list(run)?.into_iter().skip(keep) {
        fs::remove_dir_all(&old).map_err(TrainError::io(&old))?;
    }
    Ok(path)
}

/// Writes the tokenizer of a model directory, and how other tools are to read it.
pub(crate) fn save_tokenizer(tokenizer: &Tokenizer, dir: &Path) -> Result<(), TrainError> {
    tokenizer.save(&dir.join(TOKENIZER))?;
    let end = tokenizer.document_end().and_then(|id| tokenizer.token(id));
    let config = serde_json::json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": end,
        "clean_up_tokenization_spaces": false,
    });
    let path = dir.join(TOKENIZER_CONFIG);
    fs::write(&path, format!("{config:#}\n")).map_err(TrainError::io(&path))
}

/// The checkpoints of a run, newest first.
pub(crate) fn list(run: &RunDirectory) -> Result<Vec<(u64, PathBuf)>, TrainError> {
    let folder = run.checkpoints();
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).map_err(TrainError::io(&folder))? {
        let path = entry.map_err(TrainError::io(&folder))?.path();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let step = name.and_then(|name| name.strip_prefix("step-")?.parse().ok());
        found.extend(step.map(|step: u64| (step, path)));
    }
    found.sort();
    found.reverse();
    Ok(found)
}

/// The newest checkpoint that can be read, and why newer ones were passed over.
pub(crate) fn read_newest(
    run: &RunDirectory,
    device: &Device,
) -> Result<(Checkpoint, Vec<String>), TrainError> {
    let mut passed = Vec::new();
    for (_, path) in list(run)? {
        match read(&path, device) {
            Ok(checkpoint) => return Ok((checkpoint, passed)),
            Err(error) => passed.push(error.to_string()),
        }
    }
    let path = run.checkpoints();
    Err(TrainError::NothingToResume { path, passed })
}

fn read(path: &Path, device: &Device) -> Result<Checkpoint, TrainError> {
    let state = path.join(STATE);
    let text = fs::read_to_string(&state).map_err(TrainError::io(&state))?;
    let position: Position = serde_json::from_str(&text).map_err(|error| {
        let reason = error.to_string();
        TrainError::Checkpoint {
            path: state,
            reason,
        }
    })?;
    let (model, _) = load(path, device)?;
    let moments = read_moments(&path.join(OPTIMIZER), &position.updates, device)?;
    check_lengths(&path.join(OPTIMIZER), &model, &moments)?;
    let path = path.to_owned();
    Ok(Checkpoint {
        path,
        position,
        model,
        moments,
    })
}

/// Whether every parameter has moments of its own size.
fn check_lengths(
    path: &Path,
    model: &LanguageModel,
    moments: &BTreeMap<String, Moments>,
) -> Result<(), TrainError> {
    let mut lengths = Lengths::default();
    visit_parameters(model, &mut lengths);
    for (name, Moments { first, second, .. }) in moments {
        let expected = lengths.by_name.get(name).copied();
        let found = [first.dims()[0], second.dims()[0]];
        if expected.map(|n| [n, n]) != Some(found) {
            let expected = expected.map_or_else(|| "no such parameter".into(), |n| n.to_string());
            let reason = format!("moments of {name} have {found:?} entries, expected {expected}");
            return Err(TrainError::Checkpoint {
                path: path.to_owned(),
                reason,
            });
        }
    }
    Ok(())
}

#[derive(Default)]
struct Lengths {
    by_name: BTreeMap<String, usize>,
}

impl ParameterVisitor for Lengths {
    fn visit<const D: usize>(&mut self, name: &str, _role: Role, parameter: &Param<Tensor<D>>) {
        self.by_name
            .insert(name.to_owned(), parameter.lazy_shape().num_elements());
    }
}

struct Flat(TensorData);

impl View for &Flat {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = self
            .0
            .as_slice::<f32>()
            .expect("invariant: converted to f32 in write_moments");
        Cow::Owned(values.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        self.0.shape().num_elements() * size_of::<f32>()
    }
}

const FIRST: &str = "moment_1";
const SECOND: &str = "moment_2";

/// `NAME.moment_1` and `NAME.moment_2`, flat, in the model's memory order.
fn write_moments(path: &Path, moments: &BTreeMap<String, Moments>) -> Result<(), TrainError> {
    let tensors: Vec<(String, Flat)> = moments
        .iter()
        .flat_map(|(name, m)| [(name, FIRST, &m.first), (name, SECOND, &m.second)])
        .map(|(name, moment, tensor)| {
            let data = tensor.to_data().convert::<f32>();
            (format!("{name}.{moment}"), Flat(data))
        })
        .collect();
    let views = tensors.iter().map(|(name, flat)| (name.as_str(), flat));
    serialize_to_file(views, None, path).map_err(|error| TrainError::Checkpoint {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

fn read_moments(
    path: &Path,
    updates: &BTreeMap<String, usize>,
    device: &Device,
) -> Result<BTreeMap<String, Moments>, TrainError> {
    let refuse = |reason: String| TrainError::Checkpoint {
        path: path.to_owned(),
        reason,
    };
    let bytes = fs::read(path).map_err(TrainError::io(path))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| refuse(error.to_string()))?;
    let moment = |name: &str, moment: &str| {
        let name = format!("{name}.{moment}");
        let view = file
            .tensor(&name)
            .map_err(|error| refuse(format!("{name}: {error}")))?;
        if view.dtype() != Dtype::F32 || view.shape().len() != 1 {
            let found = format!("{:?} {:?}", view.dtype(), view.shape());
            return Err(refuse(format!(
                "{name} is {found}; allowed: F32 of one dimension"
            )));
        }
        let values: Vec<f32> = view
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        let shape = [values.len()];
        Ok(Tensor::<1>::from_data(
            TensorData::new::<f32, _>(values, shape),
            device,
        ))
    };
    updates
        .iter()
        .map(|(name, updates)| {
            let (first, second) = (moment(name, FIRST)?, moment(name, SECOND)?);
            let updates = *updates;
            Ok((
                name.clone(),
                Moments {
                    updates,
                    first,
                    second,
                },
            ))
        })
        .collect()
}
