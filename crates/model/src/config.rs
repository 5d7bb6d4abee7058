//! The sizes of a model and its solver, in the words of Hugging Face's `config.json`.
//!
//! LLaMA's field names, plus `solver`, `iterations` and `predictor_order`. A configuration without
//! a solver is a LLaMA, that is explicit Euler.

mod hugging_face;

use std::path::Path;

use iiet_blocks::{BlockConfig, Frequencies, Llama3Scaling};
use iiet_ode::SolverConfig;
use serde_json::Value;

use self::hugging_face::{HuggingFace, token_ids};
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
    /// How the rotary frequencies are stretched for long contexts, if they are.
    pub rope_scaling: Option<Llama3Scaling>,
    /// Standard deviation of fresh weight matrices.
    pub initializer_range: f64,
    /// Whether the output projection is the embedding.
    pub tie_embeddings: bool,
    /// The layer solver.
    pub solver: SolverConfig,
    /// The token that starts a text, if the tokenizer has one.
    pub bos_token_id: Option<u32>,
    /// The tokens that end a text: none, one, or several as in chat models.
    pub eos_token_ids: Vec<u32>,
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

    /// The frequencies that positions are rotated with.
    ///
    /// # Panics
    ///
    /// If the width of a head is odd, which [`validate`](Self::validate) refuses.
    pub fn frequencies(&self) -> Frequencies {
        let plain = Frequencies::new(self.block().head_dim(), self.rope_theta);
        match &self.rope_scaling {
            Some(scaling) => plain.scaled(scaling),
            None => plain,
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
        // Computed with in f32, where 1e308 is an infinity.
        for (key, value, most) in [
            ("rms_norm_eps", self.rms_norm_eps, 1e3),
            ("rope_theta", self.rope_theta, 1e30),
            ("initializer_range", self.initializer_range, 1e3),
        ] {
            if !(value > 0.0 && value <= most) {
                let allowed = format!("allowed: above 0, at most {most:e}");
                return refuse(key, format!("{value:?}"), allowed);
            }
        }
        if let Some(scaling) = &self.rope_scaling {
            let numbers = [
                scaling.factor,
                scaling.low_freq_factor,
                scaling.high_freq_factor,
            ];
            let positive = numbers.iter().all(|x| x.is_finite() && *x > 0.0);
            if !positive
                || scaling.low_freq_factor >= scaling.high_freq_factor
                || scaling.original_context == 0
            {
                let allowed =
                    "its numbers must be positive, low_freq_factor below high_freq_factor";
                return refuse("rope_scaling", format!("{scaling:?}"), allowed.into());
            }
        }
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

    /// The configuration with the `eos_token_id` of `generation_config.json` text, if that has one.
    ///
    /// # Errors
    ///
    /// As [`from_json`](Self::from_json).
    pub fn with_generation_json(self, text: &str, path: &Path) -> Result<Self, ModelError> {
        let json: Value = serde_json::from_str(text).map_err(|source| ModelError::Json {
            path: path.to_owned(),
            source,
        })?;
        let Some(eos) = json.get("eos_token_id").filter(|eos| !eos.is_null()) else {
            return Ok(self);
        };
        let Some(eos_token_ids) = token_ids(eos) else {
            return Err(ModelError::Unsupported {
                path: path.to_owned(),
                key: "eos_token_id".into(),
                found: eos.to_string(),
                allowed: "allowed: a token id, or a list of them".into(),
            });
        };
        let config = Self {
            eos_token_ids,
            ..self
        };
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
            (config.bos_token_id, config.eos_token_ids),
            (Some(1), vec![2])
        );
        assert!(!config.tie_embeddings);
    }

    #[test]
    fn several_ends_and_scaled_frequencies_are_read_and_written() {
        let scaling = r#""rope_scaling": {"rope_type": "llama3", "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192}"#;
        let text = LLAMA
            .replace("\"rope_scaling\": null", scaling)
            .replace("\"eos_token_id\": 2", "\"eos_token_id\": [2, 7]");
        let config = read(&text).unwrap();
        assert_eq!(config.eos_token_ids, [2, 7]);
        let expected = Llama3Scaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 8192,
        };
        assert_eq!(config.rope_scaling, Some(expected));
        assert_eq!(read(&config.to_json()).unwrap(), config);
        // Newer writers put the same under another key, next to the base.
        let renamed = text.replace(
            "\"rope_scaling\": {",
            "\"rope_parameters\": {\"rope_theta\": 5e5, ",
        );
        let config = read(&renamed).unwrap();
        assert_eq!(
            (config.rope_scaling, config.rope_theta),
            (Some(expected), 5e5)
        );
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
                "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.0}",
                "rope_scaling is {\"factor\":2.0,\"type\":\"linear\"}; allowed: none, or rope_type default or llama3",
            ),
            (
                "\"rope_scaling\": null",
                "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0}",
                "rope_scaling is {\"factor\":8.0,\"rope_type\":\"llama3\"}; llama3 needs the numbers",
            ),
            (
                "\"eos_token_id\": 2",
                "\"eos_token_id\": \"</s>\"",
                "eos_token_id is \"</s>\"; allowed: a token id, or a list of them",
            ),
            ("\"use_cache\"", "\"mlp_bias\"", "mlp_bias is true"),
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
                "rms_norm_eps is -1.0; allowed: above 0, at most 1e3",
            ),
            (
                "\"use_cache\": true",
                "\"initializer_range\": 1e308",
                "initializer_range is 1e308; allowed: above 0, at most 1e3",
            ),
            (
                "\"use_cache\": true",
                "\"solver\": \"implicit_euler\", \"iterations\": 4294967296",
                "iterations is 4294967296 in a layer; allowed: 0 to 4096",
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
