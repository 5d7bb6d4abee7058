//! The model that a run starts with: random weights, or those of a model directory.

use burn::tensor::Device;
use iiet_data::Tokenizer;
use iiet_model::{LanguageModel, ModelConfig, load};

use crate::{TrainError, TrainSection};

/// A model of the wanted configuration, with the weights of `train.init` if that is given.
///
/// The directory's solver and context may be others: parameters are taken over by name, and those
/// that only the wanted solver has start at their defaults.
pub(super) fn initial_model(
    train: &TrainSection,
    wanted: &ModelConfig,
    tokenizer: &Tokenizer,
    device: &Device,
) -> Result<LanguageModel, TrainError> {
    let Some(dir) = &train.init else {
        return Ok(LanguageModel::init(wanted, train.seed, device)?);
    };
    let own = Tokenizer::open(&dir.join("tokenizer.json"))?;
    if own.vocab_hash() != tokenizer.vocab_hash() {
        return Err(TrainError::Value {
            key: "data.tokenizer",
            found: format!("another than that of train.init, {}", dir.display()),
            allowed: format!("allowed: {}", dir.join("tokenizer.json").display()),
        });
    }
    let (model, found) = load(dir, device)?;
    let scaling = |config: &ModelConfig| format!("{:?}", config.rope_scaling);
    let keys = |config: &ModelConfig| {
        [
            (
                "vocabulary of data.tokenizer",
                config.vocab_size.to_string(),
            ),
            ("model.d_model", config.d_model.to_string()),
            ("model.d_ff", config.d_ff.to_string()),
            ("model.n_layers", config.n_layers.to_string()),
            ("model.n_heads", config.n_heads.to_string()),
            ("model.n_kv_heads", config.n_kv_heads.to_string()),
            ("model.tie_embeddings", config.tie_embeddings.to_string()),
            ("model.rms_norm_eps", config.rms_norm_eps.to_string()),
            ("model.rope_theta", config.rope_theta.to_string()),
            ("rope_scaling", scaling(config)),
        ]
    };
    for ((key, wanted), (_, found)) in keys(wanted).into_iter().zip(keys(&found)) {
        if wanted != found {
            return Err(TrainError::Value {
                key,
                found: wanted,
                allowed: format!("allowed: {found}, as in train.init, {}", dir.display()),
            });
        }
    }
    Ok(model.with_config(wanted, train.seed, device)?)
}
