//! Model directories in Hugging Face layout.

mod directory;
mod dtype;
mod packed;
mod safetensors;
mod write;

pub(crate) use directory::{Directory, Values};
pub(crate) use dtype::Dtype;
pub(crate) use packed::{PACKED, SCALE, SHAPE};
pub(crate) use write::{StoredTensor, write_safetensors, write_text};

/// The configuration.
pub(crate) const CONFIG: &str = "config.json";
/// Settings for generation, of which the tokens that end a text are used.
pub(crate) const GENERATION_CONFIG: &str = "generation_config.json";
/// All weights in one file.
pub(crate) const WEIGHTS: &str = "model.safetensors";
/// The file of each tensor, where there are several.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// The tokenizer.
pub(crate) const TOKENIZER: &str = "tokenizer.json";
/// Which tokens begin and end a text, and in older directories the template of chats.
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// The template of chats.
pub(crate) const CHAT_TEMPLATE: &str = "chat_template.jinja";
