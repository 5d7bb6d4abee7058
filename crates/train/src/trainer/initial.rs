//! The initial model of a run: random weights, or those of a model directory.

use burn::tensor::Device;
use iiet_data::Tokenizer;
use iiet_model::{LanguageModel, ModelConfig, load, model_directory};

use toml::{Table, Value};

use crate::{ModelSection, TrainError, TrainSection};

/// Keys of `[model]` in which a model may differ from its initial weights.
const MAY_DIFFER: [&str; 3] = ["seq_len", "initializer_range", "solver"];

/// A model of the given configuration, with the weights of `train.init` if given.
///
/// The directory may have another solver and context length: parameters are taken over by name, and
/// those that only the new solver has start at their defaults.
pub(super) fn initial_model(
    train: &TrainSection,
    wanted: &ModelConfig,
    tokenizer: &Tokenizer,
    device: &Device,
) -> Result<LanguageModel, TrainError> {
    let Some(dir) = &train.init else {
        return Ok(LanguageModel::init(wanted, train.seed, device)?);
    };
    let dir = &model_directory(dir);
    let own = Tokenizer::open(&dir.join("tokenizer.json"))?;
    if own.vocab_hash() != tokenizer.vocab_hash() {
        return Err(TrainError::Value {
            key: "data.tokenizer",
            found: format!("different from that of train.init, {}", dir.display()),
            allowed: format!("allowed: {}", dir.join("tokenizer.json").display()),
        });
    }
    let (model, found) = load(dir, device)?;
    let differs = |key: &str, wanted: String, found: String| {
        Err(TrainError::Initial {
            key: key.to_owned(),
            wanted,
            found,
            dir: dir.clone(),
        })
    };
    let [vocab_size, of_tokenizer] = [&found, wanted].map(|config| config.vocab_size.to_string());
    if vocab_size != of_tokenizer {
        return differs("model.vocab_size", of_tokenizer, vocab_size);
    }
    let [now, before] = [wanted, &found].map(|config| {
        Table::try_from(ModelSection::of(config)).expect("invariant: the section is a table")
    });
    // A key that is left out has its default.
    for key in now.keys().chain(before.keys()) {
        let [wanted, found] = [&now, &before].map(|table| table.get(key));
        if !MAY_DIFFER.contains(&key.as_str()) && wanted != found {
            let [wanted, found] =
                [wanted, found].map(|value| value.map_or("the default".into(), Value::to_string));
            return differs(&format!("model.{key}"), wanted, found);
        }
    }
    Ok(model.with_config(wanted, train.seed, device)?)
}
