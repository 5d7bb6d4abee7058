//! The initial model of a run: random weights, or those of a model directory.

use burn::tensor::Device;
use iiet_data::Tokenizer;
use iiet_model::{SavedModel, model_directory};

use toml::{Table, Value};

use crate::{TrainError, TrainSection, TrainedModel};

/// Keys of `[model]` in which a model may differ from its initial weights.
const MAY_DIFFER: [&str; 4] = ["seq_len", "initializer_range", "solver", ENCODER];
/// The encoder's table, whose solver may differ, but not its depth.
const ENCODER: &str = "encoder";

/// A model of the given configuration, with the weights of `train.init` if given.
///
/// The directory may have another solver and context length: parameters are taken over by name, and
/// those that only the new solver has start at their defaults.
pub(super) fn initial_model<M: TrainedModel>(
    train: &TrainSection,
    wanted: &<M as SavedModel>::Config,
    tokenizer: &Tokenizer,
    device: &Device,
) -> Result<M, TrainError> {
    let Some(dir) = &train.init else {
        return Ok(M::initialised(wanted, train.seed, device)?);
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
    let model = M::read(dir, device)?;
    let found = model.current();
    let differs = |key: &str, wanted: String, found: String| {
        Err(TrainError::Initial {
            key: key.to_owned(),
            wanted,
            found,
            dir: dir.clone(),
        })
    };
    let [vocab_size, of_tokenizer] =
        [&found, wanted].map(|config| M::vocab_size(config).to_string());
    if vocab_size != of_tokenizer {
        return differs("model.vocab_size", of_tokenizer, vocab_size);
    }
    let [now, before] = [wanted, &found].map(|config| {
        Table::try_from(M::section(config)).expect("invariant: the section is a table")
    });
    let [of_encoder, own] = [&now, &before].map(|table| depth(table.get(ENCODER)));
    if of_encoder != own {
        return differs("model.encoder.n_layers", of_encoder, own);
    }
    // A key that is left out has its default.
    for key in now.keys().chain(before.keys()) {
        let [wanted, found] = [&now, &before].map(|table| table.get(key));
        if !MAY_DIFFER.contains(&key.as_str()) && wanted != found {
            let [wanted, found] =
                [wanted, found].map(|value| value.map_or("the default".into(), Value::to_string));
            return differs(&format!("model.{key}"), wanted, found);
        }
    }
    Ok(model.configured(wanted, train.seed, device)?)
}

/// The number of layers of an encoder's table.
fn depth(encoder: Option<&Value>) -> String {
    let layers = encoder.and_then(|encoder| encoder.get("n_layers"));
    layers.map_or("none".into(), Value::to_string)
}
