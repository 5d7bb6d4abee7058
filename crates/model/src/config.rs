//! The sizes of a model and its solver, in the words of Hugging Face's `config.json`.
//!
//! LLaMA's field names, plus `solver`, `iterations` and `predictor_order`. A configuration without
//! a solver is a LLaMA, that is explicit Euler.

use std::path::Path;

use iiet_blocks::BlockConfig;
use iiet_ode::{IterationSchedule, SolverConfig, SolverName, SolverOption, SolverOptions};
use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// `config.json` as it lies on disk.
#[derive(Debug, Serialize, Deserialize)]
struct HuggingFace {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    architectures: Option<Value>,
    #[serde(default = "llama")]
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    /// Absent or null in multi-head checkpoints.
    #[serde(default)]
    num_key_value_heads: Option<usize>,
    #[serde(default = "default_context")]
    max_position_embeddings: usize,
    #[serde(default = "default_eps")]
    rms_norm_eps: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rope_theta: Option<f64>,
    #[serde(default = "default_range")]
    initializer_range: f64,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default = "silu")]
    hidden_act: String,
    #[serde(default = "explicit_euler")]
    solver: SolverName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iterations: Option<IterationSchedule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    predictor_order: Option<usize>,
    #[serde(default)]
    bos_token_id: Option<u32>,
    /// One id, or several in newer checkpoints.
    #[serde(default)]
    eos_token_id: Option<Value>,
    #[serde(default, skip_serializing)]
    head_dim: Option<usize>,
    #[serde(default, skip_serializing)]
    attention_bias: bool,
    #[serde(default, skip_serializing)]
    mlp_bias: bool,
    #[serde(default, skip_serializing)]
    rope_scaling: Option<Value>,
    /// Where newer checkpoints keep `rope_theta` and `rope_type`.
    #[serde(default, skip_serializing)]
    rope_parameters: Option<Value>,
    #[serde(default, skip_serializing)]
    quantization_config: Option<Value>,
}

fn llama() -> String {
    "llama".into()
}

fn silu() -> String {
    "silu".into()
}

fn explicit_euler() -> SolverName {
    SolverName::ExplicitEuler
}

fn default_context() -> usize {
    2048
}

fn default_eps() -> f64 {
    1e-6
}

fn default_range() -> f64 {
    0.02
}

impl HuggingFace {
    fn refuse_what_is_not_implemented(&self, path: &Path) -> Result<(), ModelError> {
        let refuse = |key: &str, found: String, allowed: &str| {
            Err(ModelError::Unsupported {
                path: path.to_owned(),
                key: key.into(),
                found,
                allowed: allowed.into(),
            })
        };
        if !["llama", "iiet"].contains(&self.model_type.as_str()) {
            return refuse(
                "model_type",
                self.model_type.clone(),
                "allowed: llama, iiet",
            );
        }
        if self.hidden_act != "silu" {
            return refuse("hidden_act", self.hidden_act.clone(), "allowed: silu");
        }
        for (key, bias) in [
            ("attention_bias", self.attention_bias),
            ("mlp_bias", self.mlp_bias),
        ] {
            if bias {
                return refuse(key, "true".into(), "projections have no biases here");
            }
        }
        if let Some(quantization) = &self.quantization_config {
            return refuse(
                "quantization_config",
                quantization.to_string(),
                "weights must be f32, bf16 or f16",
            );
        }
        if let (Some(head_dim), heads @ 1..) = (self.head_dim, self.num_attention_heads)
            && Some(self.hidden_size) != head_dim.checked_mul(heads)
        {
            let allowed = "allowed: hidden_size / num_attention_heads";
            return refuse("head_dim", head_dim.to_string(), allowed);
        }
        for (key, rope) in [
            ("rope_scaling", &self.rope_scaling),
            ("rope_parameters", &self.rope_parameters),
        ] {
            let Some(rope) = rope else { continue };
            let kind = rope.get("rope_type").or(rope.get("type"));
            if kind.is_some_and(|kind| kind != "default")
                || (kind.is_none() && key == "rope_scaling")
            {
                return refuse(key, rope.to_string(), "allowed: none, or rope_type default");
            }
        }
        Ok(())
    }

    fn into_config(self) -> ModelConfig {
        let defaults = SolverOptions::default();
        let rope_parameters = self.rope_parameters.as_ref();
        let rope_theta = self
            .rope_theta
            .or_else(|| rope_parameters?.get("rope_theta")?.as_f64())
            .unwrap_or(1e4);
        let eos = self.eos_token_id.as_ref();
        let eos_token_id = eos
            .and_then(|eos| eos.as_u64().or_else(|| eos.get(0)?.as_u64()))
            .and_then(|id| u32::try_from(id).ok());
        ModelConfig {
            vocab_size: self.vocab_size,
            d_model: self.hidden_size,
            d_ff: self.intermediate_size,
            n_layers: self.num_hidden_layers,
            n_heads: self.num_attention_heads,
            n_kv_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
            seq_len: self.max_position_embeddings,
            rms_norm_eps: self.rms_norm_eps,
            rope_theta,
            initializer_range: self.initializer_range,
            tie_embeddings: self.tie_word_embeddings,
            solver: SolverConfig {
                name: self.solver,
                options: SolverOptions {
                    iterations: self.iterations.unwrap_or(defaults.iterations),
                    predictor_order: self.predictor_order.unwrap_or(defaults.predictor_order),
                },
            },
            bos_token_id: self.bos_token_id,
            eos_token_id,
        }
    }

    fn from_config(config: &ModelConfig) -> Self {
        let SolverConfig { name, options } = &config.solver;
        let plain = *name == SolverName::ExplicitEuler;
        let architecture = if plain {
            "LlamaForCausalLM"
        } else {
            "IietForCausalLM"
        };
        Self {
            architectures: Some(Value::from(vec![architecture])),
            model_type: if plain { "llama" } else { "iiet" }.into(),
            vocab_size: config.vocab_size,
            hidden_size: config.d_model,
            intermediate_size: config.d_ff,
            num_hidden_layers: config.n_layers,
            num_attention_heads: config.n_heads,
            num_key_value_heads: Some(config.n_kv_heads),
            max_position_embeddings: config.seq_len,
            rms_norm_eps: config.rms_norm_eps,
            rope_theta: Some(config.rope_theta),
            initializer_range: config.initializer_range,
            tie_word_embeddings: config.tie_embeddings,
            hidden_act: silu(),
            solver: *name,
            iterations: name.reads(SolverOption::Iterations).then(|| {
                IterationSchedule::PerLayer(options.iterations.per_layer(config.n_layers))
            }),
            predictor_order: name
                .reads(SolverOption::PredictorOrder)
                .then_some(options.predictor_order),
            bos_token_id: config.bos_token_id,
            eos_token_id: config.eos_token_id.map(Value::from),
            head_dim: None,
            attention_bias: false,
            mlp_bias: false,
            rope_scaling: None,
            rope_parameters: None,
            quantization_config: None,
        }
    }
}

#[cfg(test)]
mod tests {
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
