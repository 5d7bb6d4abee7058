//! The Python files that let Hugging Face `transformers` load a model directory.
//!
//! `transformers` knows LLaMA, which is what explicit Euler is written as. For the other solvers it is
//! given a configuration class and a model class, one file each, and `auto_map` in `config.json` says which
//! class is in which file. They are compiled into the binary and written beside the weights.

use std::collections::BTreeMap;
use std::path::Path;

use iiet_blocks::{BlockConfig, LlamaConfig};
use iiet_files::Manifest;
use iiet_ode::{Options, SolverConfig};
use serde_json::{Value, json};

use super::write::write_text;
use crate::{ModelConfig, ModelError};

/// The names of the files and their texts.
const FILES: [(&str, &str); 2] = [
    (
        "configuration_iiet.py",
        include_str!("../../transformers/configuration_iiet.py"),
    ),
    (
        "modeling_iiet.py",
        include_str!("../../transformers/modeling_iiet.py"),
    ),
];

/// Writes the Python files of a model that needs them, and enters them in the manifest. The text of
/// `config.json` is returned, with `auto_map` if they were written.
///
/// Explicit Euler over LLaMA's block needs none. Blocks and solvers from outside this workspace have
/// none: `transformers` refuses their `model_type`.
pub(super) fn write<B: BlockConfig, S: Options>(
    config: &ModelConfig<B, S>,
    dir: &Path,
    manifest: &mut Manifest,
) -> Result<String, ModelError> {
    let text = config.to_json();
    let mut keys: BTreeMap<String, Value> =
        serde_json::from_str(&text).expect("invariant: to_json writes an object");
    let ours = B::NAME == LlamaConfig::NAME && SolverConfig::NAMES.contains(&config.solver.name());
    if keys["model_type"] != "iiet" || !ours {
        return Ok(text);
    }
    for (name, content) in FILES {
        manifest.add(name, write_text(&dir.join(name), content)?);
    }
    keys.insert(
        "auto_map".into(),
        json!({
            "AutoConfig": "configuration_iiet.IietConfig",
            "AutoModel": "modeling_iiet.IietModel",
            "AutoModelForCausalLM": "modeling_iiet.IietForCausalLM",
        }),
    );
    Ok(serde_json::to_string_pretty(&keys).expect("invariant: plain data serialises") + "\n")
}
