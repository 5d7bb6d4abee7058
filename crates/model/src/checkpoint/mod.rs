//! Model directories in Hugging Face layout: `config.json` and `model.safetensors`, or shards
//! with a `model.safetensors.index.json`; and a manifest, if they were written here.

pub mod durable;
mod finite;
mod hash;
mod header;
mod manifest;
mod read;
mod write;

pub use hash::model_hash;
pub use header::parse_safetensors;
pub use manifest::{FileRecord, MANIFEST, Manifest};
pub use read::{load, load_config, load_in};
pub use write::{SaveOptions, save, write_safetensors};

/// The configuration.
const CONFIG: &str = "config.json";
/// What other tools read before they generate; here, the tokens that end a text.
const GENERATION_CONFIG: &str = "generation_config.json";
/// All weights in one file.
const WEIGHTS: &str = "model.safetensors";
/// Which shard holds which tensor.
const INDEX: &str = "model.safetensors.index.json";
