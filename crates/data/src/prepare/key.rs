//! The name of a result: a hash of all that determines it.

use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::{FORMAT, Located};
use crate::config::{DataConfig, Validation};
use crate::error::DataError;
use crate::source::cargo_deps;
use crate::source::{Format, Item};
use crate::tokenizer::Tokenizer;

/// blake3, in hexadecimal, over the configuration, the version of every package or the path, size
/// and time of every file, and the tokenizer's content.
pub(super) fn key(
    config: &DataConfig,
    source: &Located,
    tokenizer: Option<&Tokenizer>,
) -> Result<String, DataError> {
    let mut hash = blake3::Hasher::new();
    let mut field = |name: &str, value: &[u8]| {
        for part in [name.as_bytes(), value] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    };
    field("format", &FORMAT.to_le_bytes());
    field("on_error", format!("{:?}", config.on_error).as_bytes());
    match &config.validation {
        Validation::Fraction(fraction) => field("fraction", &fraction.to_le_bytes()),
        Validation::Path(_) => field("validation", b"own"),
    }
    match tokenizer {
        Some(tokenizer) => field("tokenizer", tokenizer.json()),
        None => field("vocab_size", &(config.vocab_size as u64).to_le_bytes()),
    }
    let items = match source {
        Located::Files(items) => items,
        Located::Packages {
            packages,
            validation,
        } => {
            field("rules", &cargo_deps::RULES.to_le_bytes());
            for package in packages {
                field("package", package.id.as_bytes());
            }
            validation
        }
    };
    if items.iter().any(|item| item.format != Format::Text) {
        field("text_field", config.text_field.as_bytes());
    }
    for item in items {
        field("split", format!("{:?}", item.split).as_bytes());
        field("path", item.path.as_os_str().as_encoded_bytes());
        field("bytes", &item.bytes.to_le_bytes());
        field("modified", &modified(item, &item.path)?.to_le_bytes());
    }
    Ok(hash.finalize().to_hex().to_string())
}

/// Nanoseconds since 1970, 0 where the system keeps no times.
fn modified(_item: &Item, path: &Path) -> Result<u128, DataError> {
    let metadata = fs::metadata(path).map_err(DataError::io(path))?;
    let since = metadata.modified().ok();
    let since = since.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Ok(since.map_or(0, |since| since.as_nanos()))
}
