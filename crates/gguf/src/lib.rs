//! stub
mod blocks;
mod error;
pub mod llama;
mod metadata;
mod reader;
mod source;
mod tensors;
pub mod tokenizer;
mod writer;

pub use blocks::{dequantize, quantize};
pub use error::GgufError;
pub use metadata::{Array, Metadata, Value};
pub use reader::GgufReader;
pub use tensors::{TensorInfo, TensorType};
pub use writer::{write_gguf, write_gguf_to};
