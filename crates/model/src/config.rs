//! The sizes of a model and its solver, in the words of Hugging Face's `config.json`.
//!
//! LLaMA's field names, plus `solver`, `iterations` and `predictor_order`. A configuration without
//! a solver is a LLaMA, that is explicit Euler.

mod hugging_face;

use std::path::Path;

use iiet_blocks::BlockConfig;
use iiet_ode::SolverConfig;

use self::hugging_face::HuggingFace;
use crate::ModelError;

/// Everything that determines a model's function, up to its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Width inside the feed-forward layers.
    pub d_ff: usize,
    /// Number of layers, N.
    pub n_layers: usize,
    /// Query heads a layer.
    pub n_heads: usize,
    /// Key/value heads a layer.
    pub n_kv_heads: usize,
    /// The longest sequence the model is meant for, in tokens.
    pub seq_len: usize,
    /// What RMSNorm adds to the mean square.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Standard deviation of fresh weight matrices.
    pub initializer_range: f64,
    /// Whether the output projection is the embedding.
    pub tie_embeddings: bool,
    /// The layer solver.
    pub solver: SolverConfig,
    /// The token that starts a text, if the tokenizer has one.
    pub bos_token_id: Option<u32>,
    /// The token that ends a text, if the tokenizer has one.
    pub eos_token_id: Option<u32>,
}

impl ModelConfig {
    /// The sizes of each layer's block.
    pub fn block(&self) -> BlockConfig {
        BlockConfig {
            d_model: self.d_model,
            d_ff: self.d_ff,
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            norm_eps: self.rms_norm_eps,
        }
    }

    /// Whether such a model can be built.
    ///
    /// # Errors
    ///
    /// [`ModelError::Config`] or [`ModelError::Solver`], naming the key, what was found and what
    /// is allowed.
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
            ("d_ff (intermediate_size)", self.d_ff),
            ("n_layers (num_hidden_layers)", self.n_layers),
            ("n_heads (num_attention_heads)", self.n_heads),
            ("n_kv_heads (num_key_value_heads)", self.n_kv_heads),
            ("seq_len (max_position_embeddings)", self.seq_len),
        ] {
            // Products of any three sizes must stay far from overflow.
            if size == 0 || size > 1 << 20 {
                return refuse(key, size.to_string(), "allowed: 1 to 1048576".into());
            }
        }
        // A layer takes memory before it has weights.
        if self.n_layers > 1 << 14 {
            let key = "n_layers (num_hidden_layers)";
            return refuse(key, self.n_layers.to_string(), "allowed: 1 to 16384".into());
        }
        let Self {
            d_model,
            n_heads,
            n_kv_heads,
            ..
        } = *self;
        if !d_model.is_multiple_of(n_heads) || !(d_model / n_heads).is_multiple_of(2) {
            return refuse(
                "d_model (hidden_size)",
                d_model.to_string(),
                format!("it must be an even multiple of n_heads (num_attention_heads), {n_heads}"),
            );
        }
        if !n_heads.is_multiple_of(n_kv_heads) {
            return refuse(
                "n_kv_heads (num_key_value_heads)",
                n_kv_heads.to_string(),
                format!("it must divide n_heads (num_attention_heads), {n_heads}"),
            );
        }
        for (key, value) in [
            ("rms_norm_eps", self.rms_norm_eps),
            ("rope_theta", self.rope_theta),
            ("initializer_range", self.initializer_range),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return refuse(key, value.to_string(), "allowed: finite and above 0".into());
            }
        }
        for (key, id) in [
            ("bos_token_id", self.bos_token_id),
            ("eos_token_id", self.eos_token_id),
        ] {
            if let Some(id) = id.filter(|id| *id as usize >= self.vocab_size) {
                let allowed = format!("allowed: below vocab_size, {}", self.vocab_size);
                return refuse(key, id.to_string(), allowed);
            }
        }
        Ok(self.solver.validate(self.n_layers)?)
    }

    /// Reads `config.json` text; `path` is for messages.
    ///
    /// # Errors
    ///
    /// [`ModelError::Json`] with line and column, [`ModelError::Unsupported`] for a model of
    /// another kind, and the errors of [`validate`](Self::validate).
    pub fn from_json(text: &str, path: &Path) -> Result<Self, ModelError> {
        let json: HuggingFace = serde_json::from_str(text).map_err(|source| ModelError::Json {
            path: path.to_owned(),
            source,
        })?;
        json.refuse_what_is_not_implemented(path)?;
        let config = json.into_config();
        config.validate()?;
        Ok(config)
    }

    /// The text of `config.json`.
    pub fn to_json(&self) -> String {
        let json = HuggingFace::from_config(self);
        serde_json::to_string_pretty(&json).expect("invariant: plain data serialises") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use iiet_ode::{IterationSchedule, SolverName, SolverOption};

    use super::*;

    const LLAMA: &str = r#"{
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 512,
        "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 5,
        "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-05, "hidden_act": "silu", "torch_dtype": "float32",
        "rope_scaling": null, "eos_token_id": 2, "bos_token_id": 1, "use_cache": true
    }"#;

    fn read(text: &str) -> Result<ModelConfig, ModelError> {
        ModelConfig::from_json(text, Path::new("config.json"))
    }

    #[test]
    fn a_llama_is_explicit_euler() {
        let config = read(LLAMA).unwrap();
        assert_eq!(config.solver.name, SolverName::ExplicitEuler);
        assert_eq!(
            (config.n_heads, config.n_kv_heads, config.rope_theta),
            (8, 4, 1e4)
        );
        assert_eq!(
            (config.bos_token_id, config.eos_token_id),
            (Some(1), Some(2))
        );
        assert!(!config.tie_embeddings);
    }

    #[test]
    fn writing_and_reading_is_the_identity() {
        let mut config = read(LLAMA).unwrap();
        for name in SolverName::ALL {
            config.solver.name = *name;
            config.solver.options.iterations = IterationSchedule::PerLayer(vec![3, 1, 0, 2, 2]);
            config.solver.options.predictor_order = 4;
            let again = read(&config.to_json()).unwrap();
            assert_eq!(again.to_json(), config.to_json());
            assert_eq!(again.solver.name, *name);
            if name.reads(SolverOption::Iterations) {
                assert_eq!(
                    again,
                    ModelConfig {
                        solver: again.solver.clone(),
                        ..config.clone()
                    }
                );
                assert_eq!(
                    again.solver.options.iterations,
                    config.solver.options.iterations
                );
            }
        }
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        for (from, to, expected) in [
            (
                "\"llama\"",
                "\"gpt2\"",
                "config.json: model_type is gpt2; allowed: llama, iiet",
            ),
            (
                "\"silu\"",
                "\"gelu\"",
                "config.json: hidden_act is gelu; allowed: silu",
            ),
            (
                "\"use_cache\"",
                "\"attention_bias\"",
                "attention_bias is true",
            ),
            (
                "\"rope_scaling\": null",
                "\"rope_scaling\": {\"rope_type\": \"llama3\"}",
                "rope_scaling is {\"rope_type\":\"llama3\"}",
            ),
            (
                "\"use_cache\": true",
                "\"head_dim\": 16",
                "head_dim is 16; allowed: hidden_size / num_attention_heads",
            ),
            (
                "\"use_cache\": true",
                "\"solver\": \"leapfrog\"",
                "unknown variant `leapfrog`",
            ),
        ] {
            let error = read(&LLAMA.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for (from, to, expected) in [
            (
                "\"vocab_size\": 512",
                "\"vocab_size\": 0",
                "vocab_size is 0; allowed: 1 to 1048576",
            ),
            (
                "\"num_attention_heads\": 8",
                "\"num_attention_heads\": 0",
                "n_heads (num_attention_heads) is 0",
            ),
            (
                "\"num_attention_heads\": 8",
                "\"num_attention_heads\": 7",
                "it must be an even multiple of n_heads",
            ),
            (
                "\"num_key_value_heads\": 4",
                "\"num_key_value_heads\": 3",
                "it must divide n_heads",
            ),
            (
                "\"hidden_size\": 64",
                "\"hidden_size\": 18446744073709551615",
                "allowed: 1 to 1048576",
            ),
            (
                "\"eos_token_id\": 2",
                "\"eos_token_id\": 512",
                "eos_token_id is 512; allowed: below vocab_size, 512",
            ),
            (
                "1e-05",
                "-1",
                "rms_norm_eps is -1; allowed: finite and above 0",
            ),
            (
                "\"use_cache\": true",
                "\"solver\": \"implicit_euler\", \"iterations\": [1, 2]",
                "iterations lists 2 layers, the model has 5",
            ),
            (
                "\"use_cache\": true",
                "\"solver\": \"runge_kutta\", \"predictor_order\": 3",
                "predictor_order is 3; allowed: 2, 4",
            ),
        ] {
            let error = read(&LLAMA.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
