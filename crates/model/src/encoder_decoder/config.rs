//! The sizes of an encoder-decoder and the solvers of its sides, in `config.json`.
//!
//! The keys are those of a language model. `encoder` and `decoder` are tables with the keys in which the
//! sides differ: the number of layers, the solver and its options.
//!
//! ```json
//! { "is_encoder_decoder": true, "vocab_size": 32000, "hidden_size": 512, "intermediate_size": 1408,
//!   "num_attention_heads": 4, "tie_word_embeddings": true, "label_smoothing": 0.1,
//!   "encoder": { "num_hidden_layers": 6, "solver": "iterative_implicit_euler", "iterations": 3 },
//!   "decoder": { "num_hidden_layers": 6, "solver": "explicit_euler" } }
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use iiet_blocks::{BlockConfig, LlamaConfig};
use iiet_ode::SolverConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::{
    block_from_json, ends_from_json, quantisation_from_json, solver_from_json, solver_to_json,
    token_ids,
};
use crate::{ModelConfig, ModelError};

/// `model_type` in files written here.
const MODEL_TYPE: &str = "iiet_encoder_decoder";
const ARCHITECTURE: &str = "IietForConditionalGeneration";

/// The configuration of an encoder-decoder, which determines its function up to the weights.
///
/// The serde form is a part of `config.json`; [`to_json`](Self::to_json) and
/// [`from_json`](Self::from_json) write and read the whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EncoderDecoderConfig {
    /// Size of the vocabulary that source and target share, in tokens.
    pub vocab_size: usize,
    /// Width of the hidden states.
    #[serde(rename = "hidden_size")]
    pub d_model: usize,
    /// Context length of a source and of a target, in tokens.
    #[serde(rename = "max_position_embeddings", default = "default_context")]
    pub seq_len: usize,
    /// Standard deviation of the initial weights.
    #[serde(default = "default_range")]
    pub initializer_range: f64,
    /// The share s of the loss that is the mean over the vocabulary: from 0, below 1.
    #[serde(default)]
    pub label_smoothing: f64,
    /// The token that begins a target, if there is one.
    #[serde(default)]
    pub decoder_start_token_id: Option<u32>,
    /// The tokens that end a target.
    #[serde(rename = "eos_token_id", default, with = "token_ids")]
    pub eos_token_ids: Vec<u32>,
    /// The sizes of the blocks on both sides.
    #[serde(skip)]
    pub block: LlamaConfig,
    /// The layers from the source to m.
    #[serde(skip)]
    pub encoder: StackConfig,
    /// The layers from the target to its next tokens.
    #[serde(skip)]
    pub decoder: StackConfig,
}

/// The depth and the solver of a side.
#[derive(Debug, Clone, PartialEq)]
pub struct StackConfig {
    /// Number of layers, N.
    pub n_layers: usize,
    /// The layer solver.
    pub solver: SolverConfig,
}

/// A side of an encoder-decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// From the source to m.
    Encoder,
    /// From the target, and m, to its next tokens.
    Decoder,
}

impl Side {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Encoder, Self::Decoder];

    /// `encoder` or `decoder`, its key in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Encoder => "encoder",
            Self::Decoder => "decoder",
        }
    }
}

impl Default for StackConfig {
    /// Six plain layers, as in Transformer-base (arXiv 1706.03762).
    fn default() -> Self {
        Self {
            n_layers: 6,
            solver: SolverConfig::default(),
        }
    }
}

fn default_context() -> usize {
    ModelConfig::default().seq_len
}

fn default_range() -> f64 {
    ModelConfig::default().initializer_range
}

impl Default for EncoderDecoderConfig {
    /// Six plain layers of width 512 on each side, a vocabulary of 32000.
    fn default() -> Self {
        let ModelConfig {
            vocab_size,
            d_model,
            seq_len,
            initializer_range,
            block,
            ..
        } = ModelConfig::default();
        Self {
            vocab_size,
            d_model,
            seq_len,
            initializer_range,
            label_smoothing: 0.0,
            decoder_start_token_id: None,
            eos_token_ids: Vec::new(),
            block,
            encoder: StackConfig::default(),
            decoder: StackConfig::default(),
        }
    }
}

/// Keys that identify the kind of model.
#[derive(Deserialize)]
struct Kind {
    #[serde(default)]
    model_type: Option<String>,
    #[serde(default)]
    is_encoder_decoder: bool,
    #[serde(default)]
    tie_word_embeddings: Option<bool>,
}

/// The sides, as far as they do not depend on a solver.
#[derive(Deserialize)]
struct Sides {
    encoder: SideKeys,
    decoder: SideKeys,
}

#[derive(Deserialize)]
struct SideKeys {
    num_hidden_layers: usize,
    #[serde(default)]
    solver: Option<String>,
}

impl EncoderDecoderConfig {
    /// Checks that the configuration is valid.
    ///
    /// # Errors
    ///
    /// [`ModelError::Config`] or [`ModelError::Solver`], with the key, its value and the allowed values;
    /// [`ModelError::Side`] around those of one side.
    pub fn validate(&self) -> Result<(), ModelError> {
        for side in Side::ALL {
            let of_side = |source| ModelError::Side {
                side: side.name(),
                source: Box::new(source),
            };
            self.as_language_model(side)
                .validate()
                .map_err(|error| match &error {
                    ModelError::Solver(_) => of_side(error),
                    ModelError::Config { key, .. } if key.starts_with("n_layers") => of_side(error),
                    _ => error,
                })?;
        }
        let s = self.label_smoothing;
        if !(0.0..1.0).contains(&s) {
            return Err(ModelError::Config {
                key: "label_smoothing",
                found: format!("{s:?}"),
                allowed: "allowed: from 0, below 1".into(),
            });
        }
        match self.decoder_start_token_id {
            Some(id) if id as usize >= self.vocab_size => Err(ModelError::Config {
                key: "decoder_start_token_id",
                found: id.to_string(),
                allowed: format!("allowed: below vocab_size, {}", self.vocab_size),
            }),
            _ => Ok(()),
        }
    }

    /// The layers of a side.
    pub fn stack(&self, side: Side) -> &StackConfig {
        match side {
            Side::Encoder => &self.encoder,
            Side::Decoder => &self.decoder,
        }
    }

    /// The layers of a side, to be changed.
    pub fn stack_mut(&mut self, side: Side) -> &mut StackConfig {
        match side {
            Side::Encoder => &mut self.encoder,
            Side::Decoder => &mut self.decoder,
        }
    }

    /// Both sides with their keys.
    fn sides(&self) -> [(&'static str, &StackConfig); 2] {
        Side::ALL.map(|side| (side.name(), self.stack(side)))
    }

    /// A side as a language model: its layers with the sizes that it shares with the other side.
    pub fn as_language_model(&self, side: Side) -> ModelConfig {
        let stack = self.stack(side);
        ModelConfig {
            vocab_size: self.vocab_size,
            d_model: self.d_model,
            n_layers: stack.n_layers,
            seq_len: self.seq_len,
            initializer_range: self.initializer_range,
            tie_embeddings: true,
            bos_token_id: None,
            eos_token_ids: self.eos_token_ids.clone(),
            block: self.block.clone(),
            solver: stack.solver.clone(),
        }
    }

    /// Reads the text of a `config.json`; `path` is used in messages.
    ///
    /// # Errors
    ///
    /// [`ModelError::NotEncoderDecoder`] for a language model, [`ModelError::Json`] with line and column,
    /// [`ModelError::Unsupported`] for another kind of model, and the errors of
    /// [`validate`](Self::validate).
    pub fn from_json(text: &str, path: &Path) -> Result<Self, ModelError> {
        let refuse = |source| ModelError::Json {
            path: path.to_owned(),
            source,
        };
        let unsupported = |key: &str, found: String, allowed: String| {
            Err(ModelError::Unsupported {
                path: path.to_owned(),
                key: key.into(),
                found,
                allowed,
            })
        };
        let kind: Kind = serde_json::from_str(text).map_err(refuse)?;
        if !kind.is_encoder_decoder {
            let path = path.to_owned();
            return Err(ModelError::NotEncoderDecoder { path });
        }
        match kind.model_type {
            Some(found) if found != MODEL_TYPE => {
                return unsupported("model_type", found, format!("allowed: {MODEL_TYPE}"));
            }
            _ => {}
        }
        quantisation_from_json(text, path)?;
        if kind.tie_word_embeddings == Some(false) {
            let allowed = "allowed: true: one embedding serves source, target and output";
            return unsupported("tie_word_embeddings", "false".into(), allowed.into());
        }
        let sizes: Self = serde_json::from_str(text).map_err(refuse)?;
        let sides: Sides = serde_json::from_str(text).map_err(refuse)?;
        let keys: Map<String, Value> = serde_json::from_str(text).map_err(refuse)?;
        let stack = |key: &'static str, side: SideKeys| {
            let Some(Value::Object(keys)) = keys.get(key) else {
                panic!("invariant: {key} was read as a table");
            };
            let solver = solver_from_json(side.solver.as_deref(), keys, path);
            let solver = solver.map_err(|source| ModelError::Side {
                side: key,
                source: Box::new(source),
            })?;
            Ok::<_, ModelError>(StackConfig {
                n_layers: side.num_hidden_layers,
                solver,
            })
        };
        let config = Self {
            block: block_from_json(text, path)?,
            encoder: stack("encoder", sides.encoder)?,
            decoder: stack("decoder", sides.decoder)?,
            ..sizes
        };
        config.validate()?;
        Ok(config)
    }

    /// The configuration with the `eos_token_id` from the text of a `generation_config.json`, if present.
    ///
    /// # Errors
    ///
    /// The same as for [`from_json`](Self::from_json).
    pub fn with_generation_json(self, text: &str, path: &Path) -> Result<Self, ModelError> {
        let ends = ends_from_json(text, path)?;
        let config = match ends.is_empty() {
            true => self,
            false => Self {
                eos_token_ids: ends,
                ..self
            },
        };
        config.validate()?;
        Ok(config)
    }

    /// The text of `config.json`, with its keys in alphabetical order.
    pub fn to_json(&self) -> String {
        let Ok(Value::Object(sizes)) = serde_json::to_value(self) else {
            panic!("configurations serialise as tables");
        };
        let mut keys: BTreeMap<String, Value> = sizes.into_iter().collect();
        keys.extend(self.block.write());
        for (side, stack) in self.sides() {
            let mut of_side = solver_to_json(&stack.solver, stack.n_layers);
            of_side.insert("num_hidden_layers".into(), stack.n_layers.into());
            let of_side: BTreeMap<String, Value> = of_side.into_iter().collect();
            keys.insert(side.into(), Value::Object(of_side.into_iter().collect()));
        }
        keys.insert("architectures".into(), vec![ARCHITECTURE].into());
        keys.insert("is_encoder_decoder".into(), true.into());
        keys.insert("model_type".into(), MODEL_TYPE.into());
        keys.insert("tie_word_embeddings".into(), true.into());
        serde_json::to_string_pretty(&keys).expect("invariant: plain data serialises") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use iiet_ode::Options;

    use super::*;

    const TEXT: &str = r#"{
        "vocab_size": 101, "hidden_size": 32, "intermediate_size": 56, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 64, "eos_token_id": 2,
        "is_encoder_decoder": true, "label_smoothing": 0.1, "decoder_start_token_id": 1,
        "encoder": {"num_hidden_layers": 3, "solver": "iterative_implicit_euler", "iterations": [2, 0, 1]},
        "decoder": {"num_hidden_layers": 2}
    }"#;

    fn read(text: &str) -> Result<EncoderDecoderConfig, ModelError> {
        EncoderDecoderConfig::from_json(text, Path::new("config.json"))
    }

    #[test]
    fn each_side_has_its_own_depth_and_solver() {
        let config = read(TEXT).unwrap();
        let (encoder, decoder) = (&config.encoder, &config.decoder);
        assert_eq!((encoder.n_layers, decoder.n_layers), (3, 2));
        assert_eq!(encoder.solver.name(), "iterative_implicit_euler");
        assert_eq!(decoder.solver.name(), "explicit_euler");
        assert_eq!((config.label_smoothing, config.block.n_kv_heads), (0.1, 2));
        let again = read(&config.to_json()).unwrap();
        assert_eq!(again, config);
        assert_eq!(again.to_json(), config.to_json());
    }

    #[test]
    fn invalid_files_are_errors_that_name_the_side_and_the_key() {
        for (from, to, expected) in [
            (
                "\"is_encoder_decoder\": true",
                "\"is_encoder_decoder\": false",
                "config.json: a language model, without is_encoder_decoder; a sequence-to-sequence model is needed here",
            ),
            (
                "\"eos_token_id\": 2",
                "\"model_type\": \"t5\"",
                "config.json: model_type is t5; allowed: iiet_encoder_decoder",
            ),
            (
                "\"eos_token_id\": 2",
                "\"tie_word_embeddings\": false",
                "config.json: tie_word_embeddings is false; allowed: true",
            ),
            (
                "\"num_hidden_layers\": 2",
                "\"solver\": \"explicit_euler\"",
                "config.json: missing field `num_hidden_layers` at line 6",
            ),
            (
                "\"decoder\": {\"num_hidden_layers\": 2}",
                "\"x\": 1",
                "missing field `decoder`",
            ),
            (
                "\"decoder\": {\"num_hidden_layers\": 2}",
                "\"decoder\": 6",
                "invalid type: integer `6`",
            ),
            (
                "\"num_hidden_layers\": 2",
                "\"num_hidden_layers\": 0",
                "decoder: n_layers (num_hidden_layers) is 0; allowed: 1 to 1048576",
            ),
            (
                "[2, 0, 1]",
                "[2, 0]",
                "encoder: iterations lists 2 layers, the model has 3",
            ),
            ("[2, 0, 1]", "-1", "encoder: config.json: iterations is -1"),
            (
                "iterative_implicit_euler",
                "leapfrog",
                "encoder: there is no solver \"leapfrog\"",
            ),
            (
                "\"label_smoothing\": 0.1",
                "\"label_smoothing\": 1",
                "label_smoothing is 1.0; allowed: from 0, below 1",
            ),
            (
                "\"decoder_start_token_id\": 1",
                "\"decoder_start_token_id\": 101",
                "decoder_start_token_id is 101; allowed: below vocab_size, 101",
            ),
            (
                "\"num_key_value_heads\": 2",
                "\"num_key_value_heads\": 3",
                "n_kv_heads (num_key_value_heads) is 3; it must divide n_heads",
            ),
            (
                "\"hidden_size\": 32",
                "\"hidden_size\": 0",
                "d_model (hidden_size) is 0; allowed: 1 to 1048576",
            ),
        ] {
            let text = TEXT.replace(from, to);
            assert_ne!(text, TEXT, "{from}");
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_language_model_does_not_read_it() {
        let read =
            |text: &str| ModelConfig::<LlamaConfig>::from_json(text, Path::new("config.json"));
        let config = self::read(TEXT).unwrap();
        for text in [TEXT, &config.to_json()] {
            let error = read(text).unwrap_err().to_string();
            let expected = "config.json: is_encoder_decoder is true: this is a sequence-to-sequence \
                            model, and a language model is needed here";
            assert_eq!(error, expected);
        }
    }
}
