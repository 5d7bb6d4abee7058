//! Which model a result is of.

use std::fs::File;
use std::path::Path;

use crate::error::EvalError;

/// blake3, in hexadecimal, of the names and contents of a model directory's configuration, weights
/// and tokenizer files (`*.json`, `*.safetensors`).
///
/// # Errors
/// [`EvalError::Io`] if one cannot be read.
pub fn model_hash(model: &Path) -> Result<String, EvalError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(model).map_err(EvalError::io(model))? {
        let path = entry.map_err(EvalError::io(model))?.path();
        let ending = path.extension().unwrap_or_default();
        if path.is_file() && (ending == "json" || ending == "safetensors") {
            files.push(path);
        }
    }
    files.sort();
    let mut all = blake3::Hasher::new();
    for path in files {
        let mut hash = blake3::Hasher::new();
        File::open(&path)
            .and_then(|file| hash.update_reader(file).map(|_| ()))
            .map_err(EvalError::io(&path))?;
        all.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        all.update(b"\n");
        all.update(hash.finalize().as_bytes());
    }
    Ok(all.finalize().to_hex().to_string())
}
