//! LLaMA models: the same sizes, names and weights as llama.cpp and as Hugging Face have them.

mod config;
mod metadata;
mod names;
mod rope_factors;
mod rotary;

pub use config::{Llama3Scaling, LlamaSizes};
pub use names::{LlamaTensor, Rows, gguf_name, hugging_face_name};
pub use rope_factors::{recovered_scaling, rope_factors};
pub use rotary::{half_split_rows, interleaved_rows};

/// The tensor with LLaMA 3.1's factors of the rotary wavelengths.
pub const ROPE_FACTORS: &str = "rope_freqs.weight";
