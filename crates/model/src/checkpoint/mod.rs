//! Model directories in Hugging Face layout: `config.json` and `model.safetensors`, or shards
//! with a `model.safetensors.index.json`; and, if they were written here, a manifest and the Python
//! files that `transformers` loads the model with.

mod directory;
mod find;
mod finite;
mod header;
mod packed;
mod read;
mod saved_model;
mod stored;
mod transformers;
mod write;

pub use find::model_directory;
pub use header::parse_safetensors;
pub use packed::of_floats;
pub(crate) use read::transposed;
pub use read::{load, load_as, load_config, load_in, quantisation, weight_bytes};
pub use saved_model::{ModelKind, SavedModel, model_kind};
pub use stored::StoredTensors;
pub(crate) use write::values_of;
pub use write::{SaveOptions, save, write_safetensors};

use std::path::Path;

use iiet_files::hash_files;

use crate::ModelError;

/// The configuration.
const CONFIG: &str = "config.json";
/// Settings for generation; only the tokens that end a text are used.
const GENERATION_CONFIG: &str = "generation_config.json";
/// All weights in one file.
const WEIGHTS: &str = "model.safetensors";
/// The shard of each tensor.
const INDEX: &str = "model.safetensors.index.json";

/// A hash that identifies a model: blake3, in hexadecimal, of the names and contents of a model
/// directory's configuration, weights and tokenizer files (`*.json`, `*.safetensors`).
///
/// # Errors
///
/// [`ModelError::Files`] if a file cannot be read.
pub fn model_hash(dir: &Path) -> Result<String, ModelError> {
    Ok(hash_files(dir, &["json", "safetensors"])?)
}
