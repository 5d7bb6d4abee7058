//! Which model a result is of.

use std::path::Path;

use super::FileRecord;
use crate::ModelError;

/// blake3, in hexadecimal, of the names and contents of a model directory's configuration, weights
/// and tokenizer files (`*.json`, `*.safetensors`).
///
/// # Errors
///
/// [`ModelError::Io`] if one cannot be read.
pub fn model_hash(dir: &Path) -> Result<String, ModelError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(ModelError::io(dir))? {
        let path = entry.map_err(ModelError::io(dir))?.path();
        let ending = path.extension().unwrap_or_default();
        if path.is_file() && (ending == "json" || ending == "safetensors") {
            files.push(path);
        }
    }
    files.sort();
    let mut all = blake3::Hasher::new();
    for path in files {
        all.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        all.update(b"\n");
        all.update(FileRecord::of(&path)?.blake3.as_bytes());
        all.update(b"\n");
    }
    Ok(all.finalize().to_hex().to_string())
}
