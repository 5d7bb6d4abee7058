//! Writing the files of a model directory.

use std::io::{self, Write};
use std::path::Path;

use iiet_files::{FileRecord, write_file};
use serde_json::{Map, json};

use super::Dtype;
use crate::GgufError;

/// A tensor that is to be written.
pub(crate) struct StoredTensor {
    name: String,
    dtype: Dtype,
    shape: Vec<u64>,
    bytes: u64,
}

impl StoredTensor {
    /// None if it has more than 2^64 bytes.
    pub(crate) fn new(name: String, dtype: Dtype, shape: Vec<u64>) -> Option<Self> {
        let mut sizes = shape.iter();
        let bytes = sizes.try_fold(dtype.bytes(), |all, n| all.checked_mul(*n))?;
        Some(Self {
            name,
            dtype,
            shape,
            bytes,
        })
    }
}

/// Writes a safetensors file atomically, with one tensor in memory at a time. `bytes` gives the bytes of each
/// tensor in turn, by its index.
pub(crate) fn write_safetensors(
    path: &Path,
    tensors: &[StoredTensor],
    mut bytes: impl FnMut(usize) -> Result<Vec<u8>, GgufError>,
) -> Result<FileRecord, GgufError> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut end = 0;
    for tensor in tensors {
        let begin = end;
        end += tensor.bytes;
        let entry = json!({
            "dtype": tensor.dtype.name(),
            "shape": tensor.shape,
            "data_offsets": [begin, end],
        });
        header.insert(tensor.name.clone(), entry);
    }
    let mut header = serde_json::to_vec(&header).expect("invariant: plain data serialises");
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut refused = None;
    let written = write_file(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for i in 0..tensors.len() {
            match bytes(i) {
                Ok(data) => file.write_all(&data)?,
                Err(error) => {
                    let message = error.to_string();
                    refused = Some(error);
                    return Err(io::Error::other(message));
                }
            }
        }
        Ok(())
    });
    match refused {
        Some(error) => Err(error),
        None => written.map_err(GgufError::io(path)),
    }
}

/// Writes a text file atomically.
pub(crate) fn write_text(path: &Path, text: &str) -> Result<FileRecord, GgufError> {
    write_file(path, |file| file.write_all(text.as_bytes())).map_err(GgufError::io(path))
}
