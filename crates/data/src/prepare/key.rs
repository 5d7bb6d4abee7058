//! The name of a result: a hash of everything that determines it.

use super::{FORMAT, Located, contents};
use crate::config::{DataConfig, OnError, Validation};
use crate::error::DataError;
use crate::progress::Progress;
use crate::source::{Format, Item, cargo_deps, cargo_docs};
use crate::tokenizer::Tokenizer;

/// blake3, in hexadecimal, of the configuration, the version of every package or the kind and
/// content of every file, and the tokenizer's content. The location of files does not matter.
pub(super) fn key(
    config: &DataConfig,
    source: &Located,
    tokenizer: Option<&Tokenizer>,
    progress: &dyn Progress,
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
        Validation::Path(_) | Validation::Aligned(_) => field("validation", b"own"),
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
            if config.source.is_cargo_docs() {
                field("documentation rules", &cargo_docs::RULES.to_le_bytes());
            }
            for package in packages {
                field("package", package.id.as_bytes());
            }
            validation
        }
    };
    if items.iter().any(|item| item.format != Format::Text) {
        for (key, name) in config.fields() {
            field(key, name.as_bytes());
        }
    }
    // Two aligned files are one item.
    let items: Vec<Item> = items.iter().flat_map(Item::files).cloned().collect();
    let contents = contents::hashes(&config.cache, &items, progress)?;
    if config.on_error == OnError::Skip {
        // Records that exceed the limits are skipped.
        field("limits", format!("{:?}", config.limits).as_bytes());
    }
    for (item, content) in items.iter().zip(contents) {
        field("split", format!("{:?}", item.split).as_bytes());
        let kind = format!("{:?} {:?}", item.format, item.compression);
        field("kind", kind.as_bytes());
        if config.on_error == OnError::Skip {
            // The report on skipped records contains their locations.
            field("path", item.path.as_os_str().as_encoded_bytes());
        }
        field("content", content.as_bytes());
    }
    Ok(hash.finalize().to_hex().to_string())
}
