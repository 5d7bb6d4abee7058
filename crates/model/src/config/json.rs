//! `config.json`, merged from the keys of the model, its block and its solver.

use std::collections::BTreeMap;
use std::path::Path;

use iiet_blocks::{BlockConfig, BlockError};
use iiet_compress::QuantizationConfig;
use iiet_ode::{IterationSchedule, Options};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::ModelConfig;
use crate::ModelError;

/// Keys that identify the kind of model.
#[derive(Deserialize)]
struct Kind {
    #[serde(default)]
    model_type: Option<String>,
    /// Absent for the LLaMA block.
    #[serde(default)]
    block: Option<String>,
    #[serde(default)]
    solver: Option<String>,
    #[serde(default)]
    is_encoder_decoder: Option<bool>,
}

/// Whether the text of a `config.json` describes an encoder-decoder, whatever its kind.
///
/// # Errors
///
/// [`ModelError::Json`] with line and column.
pub(crate) fn is_encoder_decoder(text: &str, path: &Path) -> Result<bool, ModelError> {
    let kind: Kind = serde_json::from_str(text).map_err(|source| ModelError::Json {
        path: path.to_owned(),
        source,
    })?;
    Ok(kind.is_encoder_decoder == Some(true))
}

/// What the text of a `config.json` says of matrices of 8 or 4 bits; nothing if all are of floats.
///
/// # Errors
///
/// [`ModelError::Unsupported`] for what this crate cannot read.
pub(crate) fn quantisation_from_json(
    text: &str,
    path: &Path,
) -> Result<Option<QuantizationConfig>, ModelError> {
    const KEY: &str = "quantization_config";
    #[derive(Deserialize)]
    struct Quantised {
        #[serde(default)]
        quantization_config: Option<Value>,
    }
    let found: Quantised = serde_json::from_str(text).map_err(|source| ModelError::Json {
        path: path.to_owned(),
        source,
    })?;
    let Some(value) = found.quantization_config else {
        return Ok(None);
    };
    let config = QuantizationConfig::from_json(&value);
    config.map(Some).map_err(|error| ModelError::Unsupported {
        path: path.to_owned(),
        key: KEY.to_owned(),
        found: "of a kind that is not read".to_owned(),
        allowed: error.to_string(),
    })
}

const LLAMA: &str = "llama";
const IIET: &str = "iiet";

impl Kind {
    /// `known` are the block's own values of `model_type`.
    fn refuse_others(&self, path: &Path, block: &str, known: &[&str]) -> Result<(), ModelError> {
        let refuse = |key: &str, found: String, allowed: String| {
            Err(ModelError::Unsupported {
                path: path.to_owned(),
                key: key.into(),
                found,
                allowed,
            })
        };
        let model_type = self.model_type.as_deref().unwrap_or(LLAMA);
        if ![LLAMA, IIET].contains(&model_type) && !known.contains(&model_type) {
            let known = known.iter().map(|known| format!(", {known}"));
            let allowed = format!("allowed: {LLAMA}, {IIET}{}", known.collect::<String>());
            return refuse("model_type", model_type.into(), allowed);
        }
        match self.block.as_deref().unwrap_or(LLAMA) {
            found if found == block => Ok(()),
            found => refuse("block", found.into(), format!("allowed: {block}")),
        }
    }
}

impl<B: BlockConfig, S: Options> ModelConfig<B, S> {
    /// Reads the text of a `config.json`; `path` is used in messages.
    ///
    /// # Errors
    ///
    /// [`ModelError::Json`] with line and column, [`ModelError::Unsupported`] for another kind of
    /// model, and the errors of [`validate`](Self::validate).
    pub fn from_json(text: &str, path: &Path) -> Result<Self, ModelError> {
        let refuse = |source| ModelError::Json {
            path: path.to_owned(),
            source,
        };
        let kind: Kind = serde_json::from_str(text).map_err(refuse)?;
        if kind.is_encoder_decoder == Some(true) {
            let path = path.to_owned();
            return Err(ModelError::EncoderDecoder { path });
        }
        kind.refuse_others(path, B::NAME, B::MODEL_TYPES)?;
        quantisation_from_json(text, path)?;
        let sizes: ModelConfig<(), ()> = serde_json::from_str(text).map_err(refuse)?;
        let block = block_from_json(text, path)?;
        let keys: Map<String, Value> = serde_json::from_str(text).map_err(refuse)?;
        let solver = solver_from_json(kind.solver.as_deref(), &keys, path)?;
        let config = sizes.with(block, solver);
        config.validate()?;
        Ok(config)
    }

    /// The configuration with the `eos_token_id` from the text of a `generation_config.json`, if
    /// present.
    ///
    /// # Errors
    ///
    /// The same as for [`from_json`](Self::from_json).
    pub fn with_generation_json(self, text: &str, path: &Path) -> Result<Self, ModelError> {
        let ends = ends_from_json(text, path)?;
        let config = match ends.is_empty() {
            true => self,
            false => Self {
                eos_token_ids: ends,
                ..self
            },
        };
        config.validate()?;
        Ok(config)
    }

    /// The text of `config.json`, with its keys in alphabetical order.
    pub fn to_json(&self) -> String {
        let name = self.solver.name();
        let known = self.block.transformers();
        let (model_type, architecture) = known
            .filter(|_| name == "explicit_euler")
            .unwrap_or((IIET, "IietForCausalLM"));
        let mut keys: BTreeMap<String, Value> = BTreeMap::new();
        keys.extend(table(serde_json::to_value(self.clone().with((), ()))));
        keys.extend(self.block.write());
        keys.extend(solver_to_json(&self.solver, self.n_layers));
        keys.insert("architectures".into(), vec![architecture].into());
        keys.insert("model_type".into(), model_type.into());
        if B::NAME != LLAMA {
            keys.insert("block".into(), B::NAME.into());
        }
        serde_json::to_string_pretty(&keys).expect("invariant: plain data serialises") + "\n"
    }
}

/// The `eos_token_id` in the text of a `generation_config.json`; none if it is not there.
pub(crate) fn ends_from_json(text: &str, path: &Path) -> Result<Vec<u32>, ModelError> {
    #[derive(Deserialize)]
    struct Generation {
        #[serde(rename = "eos_token_id", default, with = "super::token_ids")]
        eos_token_ids: Vec<u32>,
    }
    let generation: Generation = serde_json::from_str(text).map_err(|source| ModelError::Json {
        path: path.to_owned(),
        source,
    })?;
    Ok(generation.eos_token_ids)
}

fn table(value: Result<Value, serde_json::Error>) -> Map<String, Value> {
    match value {
        Ok(Value::Object(table)) => table,
        _ => panic!("configurations serialise as tables"),
    }
}

/// The block's part of the text.
pub(crate) fn block_from_json<B: BlockConfig>(text: &str, path: &Path) -> Result<B, ModelError> {
    B::read(text).map_err(|error| match error {
        BlockError::Json(source) => ModelError::Json {
            path: path.to_owned(),
            source,
        },
        BlockError::Unsupported {
            key,
            found,
            allowed,
        } => ModelError::Unsupported {
            path: path.to_owned(),
            key,
            found,
            allowed,
        },
        other => other.into(),
    })
}

/// The keys of a solver over `n_layers` layers, for which a schedule has one number each.
pub(crate) fn solver_to_json<S: Options>(solver: &S, n_layers: usize) -> Map<String, Value> {
    let mut solver = solver.clone();
    if let Some(iterations) = solver.iterations() {
        let per_layer = IterationSchedule::PerLayer(iterations.per_layer(n_layers));
        solver = solver.with_iterations(per_layer);
    }
    let mut keys = table(serde_json::to_value(&solver));
    keys.remove("name");
    keys.insert("solver".into(), solver.name().into());
    keys
}

/// The named solver, with those of its options that are in the file.
pub(crate) fn solver_from_json<S: Options>(
    name: Option<&str>,
    keys: &Map<String, Value>,
    path: &Path,
) -> Result<S, ModelError> {
    let mut solver = match name {
        Some(name) => S::named(name)?,
        None => S::default(),
    };
    let mut table = table(serde_json::to_value(&solver));
    let written = table.keys().filter(|key| *key != "name").cloned();
    let omitted = solver.omitted().iter().map(|key| (*key).to_owned());
    let options: Vec<String> = written.chain(omitted).collect();
    // Inserted one at a time, to identify an invalid one.
    for key in options {
        let Some(value) = keys.get(&key).filter(|value| !value.is_null()) else {
            continue;
        };
        table.insert(key.clone(), value.clone());
        solver = serde_json::from_value(Value::Object(table.clone())).map_err(|error| {
            ModelError::Unsupported {
                path: path.to_owned(),
                key,
                found: value.to_string(),
                allowed: error.to_string(),
            }
        })?;
    }
    Ok(solver)
}
