//! What a run that starts from a model directory takes from it: every key of `[model]` that the
//! configuration does not give, and the tokenizer.

use std::path::Path;

use iiet_data::Tokenizer;
use iiet_model::{EncoderDecoder, ModelKind, load_config, model_directory, model_kind};
use toml::{Table, Value};

use super::{ModelSection, RunConfig, parse};
use crate::TrainError;

/// Adds to a configuration what `train.init`, in it or among the assignments, decides on and it leaves
/// open; whether there was anything. A student's corpus is its teacher's, whose tokenizer may well be
/// the one that is trained on it: then `with_tokenizer` is false.
///
/// # Errors
///
/// Those of reading the directory. A complete configuration does not need it: that of a run which is
/// resumed after the directory is gone.
pub(super) fn complete(
    table: &mut Table,
    sets: &[String],
    with_tokenizer: bool,
) -> Result<bool, TrainError> {
    let Some(Value::String(init)) = value(table, sets, "train", "init") else {
        return Ok(false);
    };
    let dir = model_directory(init.as_ref());
    let with_tokenizer = with_tokenizer && !is_task(table, sets);
    match missing(table, &dir, with_tokenizer) {
        Ok(missing) => {
            let any = !missing.is_empty();
            for (section, key, value) in missing {
                let place = table
                    .entry(section)
                    .or_insert_with(|| Value::Table(Table::new()));
                if let Value::Table(place) = place {
                    place.insert(key, value);
                }
            }
            Ok(any)
        }
        Err(_) if Value::Table(table.clone()).try_into::<RunConfig>().is_ok() => Ok(false),
        Err(error) => Err(error),
    }
}

/// The value of a key; the last assignment wins.
fn value(table: &Table, sets: &[String], section: &str, key: &str) -> Option<Value> {
    let dotted = format!("{section}.{key}");
    let mut sets = sets.iter().rev().filter_map(|assignment| parse(assignment));
    let set = sets.find(|(key, _)| *key == dotted);
    let set = set.map(|(_, value)| value);
    set.or_else(|| table.get(section)?.get(key).cloned())
}

/// Whether the examples are those of a task, which has a tokenizer of its own.
fn is_task(table: &Table, sets: &[String]) -> bool {
    match value(table, sets, "data", "source") {
        Some(Value::String(source)) => source.starts_with("task:"),
        Some(Value::Table(_)) => true,
        _ => false,
    }
}

/// Section, key and value of all that the configuration leaves open.
fn missing(
    table: &Table,
    dir: &Path,
    with_tokenizer: bool,
) -> Result<Vec<(&'static str, String, Value)>, TrainError> {
    let (section, vocab_size) = match model_kind(dir)? {
        ModelKind::EncoderDecoder => {
            let config = EncoderDecoder::load_config(dir)?;
            (ModelSection::of_sequences(&config), config.vocab_size)
        }
        _ => {
            let config = load_config(dir)?;
            (ModelSection::of(&config), config.vocab_size)
        }
    };
    let has = |section: &str, key: &str| {
        let section = table.get(section).and_then(Value::as_table);
        section.is_some_and(|section| section.contains_key(key))
    };
    let section = Table::try_from(section);
    let section = section.expect("invariant: the section is a table");
    let mut missing: Vec<(&'static str, String, Value)> = section
        .into_iter()
        .filter(|(key, _)| !has("model", key))
        .map(|(key, value)| ("model", key, value))
        .collect();
    let path = dir.join("tokenizer.json");
    // Many checkpoints have more rows in their embedding than their tokenizer has tokens.
    let padded = vocab_size > Tokenizer::open(&path)?.vocab_size();
    if padded && !has("model", "vocab_size") {
        let size = Value::Integer(vocab_size as i64);
        missing.push(("model", "vocab_size".to_owned(), size));
    }
    if with_tokenizer && !has("data", "tokenizer") {
        let path = Value::String(path.display().to_string());
        missing.push(("data", "tokenizer".to_owned(), path));
    }
    Ok(missing)
}
