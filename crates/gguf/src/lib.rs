//! GGUF, the file format of llama.cpp: reading, writing, and LLaMA models to and from Hugging Face layout.
//!
//! - [`export_llama`] and [`import_llama`] convert whole models. Blocks of Q8_0 and Q4_0 are packed matrices of
//!   compressed-tensors in directories, and keep every value.
//! - [`GgufReader`] reads untrusted files: the header at once, tensors one at a time. [`write_gguf`] writes them
//!   atomically.
//! - [`quantize`] and [`dequantize`] convert values to and from ggml's block formats, bit for bit as ggml does.
//! - [`llama`] has the sizes, names and order of rows of LLaMA models, and [`tokenizer`] byte-level BPE.
//!
//! ```
//! use std::io::Cursor;
//! use std::path::Path;
//!
//! use iiet_gguf::{GgufReader, Metadata, TensorInfo, TensorType, quantize, write_gguf_to};
//!
//! let mut metadata = Metadata::new();
//! metadata.set("general.architecture", "example");
//! let values: Vec<f32> = (0u8..64).map(f32::from).collect();
//! let info = TensorInfo::new("weight", vec![2, 32], TensorType::Q8_0)?;
//! let bytes = quantize(info.kind, &values, &info.name)?;
//! let (mut file, path) = (Vec::new(), Path::new("example.gguf"));
//! write_gguf_to(&mut file, path, &metadata, &[info], |_| Ok(bytes.clone()))?;
//!
//! let mut reader = GgufReader::new(Cursor::new(file), path)?;
//! assert_eq!(reader.tensors()[0].shape, [2, 32]);
//! let read = reader.read_f32("weight")?;
//! assert!(values.iter().zip(&read).all(|(a, b)| (a - b).abs() < 0.3));
//! # Ok::<(), iiet_gguf::GgufError>(())
//! ```

mod blocks;
mod error;
mod export;
mod huggingface;
mod import;
pub mod llama;
mod metadata;
mod reader;
mod source;
mod tensors;
pub mod tokenizer;
mod writer;

pub use blocks::{dequantize, quantize};
pub use error::GgufError;
pub use export::export_llama;
pub use import::import_llama;
pub use metadata::{Array, Metadata, Value};
pub use reader::GgufReader;
pub use tensors::{TensorInfo, TensorType};
pub use writer::{write_gguf, write_gguf_to};

/// The examples in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
