//! `config.json`, merged from the keys of the model, its block and its solver.

use std::collections::BTreeMap;
use std::path::Path;

use iiet_blocks::{BlockConfig, BlockError};
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
    quantization_config: Option<Value>,
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
        if let Some(quantization) = &self.quantization_config {
            let allowed = "weights must be f32, bf16 or f16".to_owned();
            return refuse("quantization_config", quantization.to_string(), allowed);
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
        kind.refuse_others(path, B::NAME, B::MODEL_TYPES)?;
        let sizes: ModelConfig<(), ()> = serde_json::from_str(text).map_err(refuse)?;
        let block = B::read(text).map_err(|error| match error {
            BlockError::Json(source) => refuse(source),
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
        })?;
        let keys: Map<String, Value> = serde_json::from_str(text).map_err(refuse)?;
        let solver = solver(kind.solver.as_deref(), &keys, path)?;
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
        #[derive(Deserialize)]
        struct Generation {
            #[serde(rename = "eos_token_id", default, with = "super::token_ids")]
            eos_token_ids: Vec<u32>,
        }
        let generation: Generation =
            serde_json::from_str(text).map_err(|source| ModelError::Json {
                path: path.to_owned(),
                source,
            })?;
        let config = match generation.eos_token_ids.is_empty() {
            true => self,
            false => Self {
                eos_token_ids: generation.eos_token_ids,
                ..self
            },
        };
        config.validate()?;
        Ok(config)
    }

    /// The text of `config.json`, with its keys in alphabetical order.
    pub fn to_json(&self) -> String {
        let table = |value: Result<Value, serde_json::Error>| match value {
            Ok(Value::Object(table)) => table,
            _ => panic!("configurations serialise as tables"),
        };
        let mut solver = self.solver.clone();
        if let Some(iterations) = self.solver.iterations() {
            let per_layer = IterationSchedule::PerLayer(iterations.per_layer(self.n_layers));
            solver = solver.with_iterations(per_layer);
        }
        let name = solver.name();
        let known = self.block.transformers();
        let (model_type, architecture) = known
            .filter(|_| name == "explicit_euler")
            .unwrap_or((IIET, "IietForCausalLM"));
        let mut keys: BTreeMap<String, Value> = BTreeMap::new();
        keys.extend(table(serde_json::to_value(self.clone().with((), ()))));
        keys.extend(self.block.write());
        keys.extend(table(serde_json::to_value(&solver)));
        keys.remove("name");
        keys.insert("architectures".into(), vec![architecture].into());
        keys.insert("model_type".into(), model_type.into());
        keys.insert("solver".into(), name.into());
        if B::NAME != LLAMA {
            keys.insert("block".into(), B::NAME.into());
        }
        serde_json::to_string_pretty(&keys).expect("invariant: plain data serialises") + "\n"
    }
}

/// The named solver, with those of its options that are in the file.
fn solver<S: Options>(
    name: Option<&str>,
    keys: &Map<String, Value>,
    path: &Path,
) -> Result<S, ModelError> {
    let mut solver = match name {
        Some(name) => S::named(name)?,
        None => S::default(),
    };
    let Ok(Value::Object(mut table)) = serde_json::to_value(&solver) else {
        panic!("options serialise as a table");
    };
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
