//! The sizes of a model and its solver, with the names of Hugging Face's `config.json`.
//!
//! In that file, the keys of the model, of its block ([`LlamaConfig`] for LLaMA) and of its solver share one
//! table. A configuration without a solver is a LLaMA, which is explicit Euler.

mod json;
#[cfg(test)]
mod tests;
pub(crate) mod token_ids;

use iiet_blocks::{BlockConfig, LlamaConfig};
use iiet_ode::{Options, SolverConfig};
use serde::{Deserialize, Serialize};

pub(crate) use self::json::{
    block_from_json, ends_from_json, is_encoder_decoder, quantisation_from_json, solver_from_json,
    solver_to_json,
};
use crate::ModelError;

/// The configuration of a model, which determines its function up to the weights.
///
/// The serde form is the model's own part of `config.json`; [`to_json`](Self::to_json) and
/// [`from_json`](Self::from_json) write and read the whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig<B = LlamaConfig, S = SolverConfig> {
    /// Vocabulary size, in tokens.
    pub vocab_size: usize,
    /// Width of the hidden states.
    #[serde(rename = "hidden_size")]
    pub d_model: usize,
    /// Number of layers, N.
    #[serde(rename = "num_hidden_layers")]
    pub n_layers: usize,
    /// Context length, in tokens.
    #[serde(rename = "max_position_embeddings", default = "default_context")]
    pub seq_len: usize,
    /// Standard deviation of the initial weights.
    #[serde(default = "default_range")]
    pub initializer_range: f64,
    /// Whether the output projection shares the embedding's weights.
    #[serde(rename = "tie_word_embeddings", default)]
    pub tie_embeddings: bool,
    /// The token that begins a text, if the tokenizer has one.
    #[serde(default)]
    pub bos_token_id: Option<u32>,
    /// The tokens that end a text: none, one, or several as in chat models.
    #[serde(rename = "eos_token_id", default, with = "token_ids")]
    pub eos_token_ids: Vec<u32>,
    /// The sizes of each layer's block.
    #[serde(skip)]
    pub block: B,
    /// The layer solver.
    #[serde(skip)]
    pub solver: S,
}

fn default_context() -> usize {
    2048
}

fn default_range() -> f64 {
    0.02
}

impl Default for ModelConfig {
    /// The paper's 55m as a plain transformer: 12 layers of width 512, a vocabulary of 32000.
    fn default() -> Self {
        Self {
            vocab_size: 32_000,
            d_model: 512,
            n_layers: 12,
            seq_len: default_context(),
            initializer_range: default_range(),
            tie_embeddings: true,
            bos_token_id: None,
            eos_token_ids: Vec::new(),
            block: LlamaConfig::default(),
            solver: SolverConfig::default(),
        }
    }
}

impl<B, S> ModelConfig<B, S> {
    /// The same sizes with another block and another solver.
    pub fn with<C, T>(self, block: C, solver: T) -> ModelConfig<C, T> {
        ModelConfig {
            vocab_size: self.vocab_size,
            d_model: self.d_model,
            n_layers: self.n_layers,
            seq_len: self.seq_len,
            initializer_range: self.initializer_range,
            tie_embeddings: self.tie_embeddings,
            bos_token_id: self.bos_token_id,
            eos_token_ids: self.eos_token_ids,
            block,
            solver,
        }
    }
}

impl<B: BlockConfig, S: Options> ModelConfig<B, S> {
    /// Checks that the configuration is valid.
    ///
    /// # Errors
    ///
    /// [`ModelError::Config`] or [`ModelError::Solver`], with the key, its value and the allowed values.
    pub fn validate(&self) -> Result<(), ModelError> {
        let refuse = |key, found: String, allowed: String| {
            Err(ModelError::Config {
                key,
                found,
                allowed,
            })
        };
        for (key, size) in [
            ("vocab_size", self.vocab_size),
            ("d_model (hidden_size)", self.d_model),
            ("n_layers (num_hidden_layers)", self.n_layers),
            ("seq_len (max_position_embeddings)", self.seq_len),
        ] {
            // Products of any three sizes must not overflow.
            if size == 0 || size > 1 << 20 {
                return refuse(key, size.to_string(), "allowed: 1 to 1048576".into());
            }
        }
        // A layer takes memory even before its weights are allocated.
        if self.n_layers > 1 << 14 {
            let key = "n_layers (num_hidden_layers)";
            return refuse(key, self.n_layers.to_string(), "allowed: 1 to 16384".into());
        }
        // Computed in f32, where 1e308 is infinite.
        let range = self.initializer_range;
        if !(range > 0.0 && range <= 1e3) {
            let (found, allowed) = (format!("{range:?}"), "allowed: above 0, at most 1e3".into());
            return refuse("initializer_range", found, allowed);
        }
        self.block.validate(self.d_model)?;
        let ends = self.eos_token_ids.iter().map(|id| ("eos_token_id", *id));
        let start = self.bos_token_id.map(|id| ("bos_token_id", id));
        for (key, id) in start.into_iter().chain(ends) {
            if id as usize >= self.vocab_size {
                let allowed = format!("allowed: below vocab_size, {}", self.vocab_size);
                return refuse(key, id.to_string(), allowed);
            }
        }
        Ok(self.solver.validate(self.n_layers)?)
    }
}
