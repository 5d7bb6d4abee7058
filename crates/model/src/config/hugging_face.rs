//! `config.json`: LLaMA's field names, plus `solver`, `iterations` and `predictor_order`.

use std::path::Path;

use iiet_blocks::Llama3Scaling;
use iiet_ode::{IterationSchedule, SolverConfig, SolverName, SolverOption, SolverOptions};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{ModelConfig, ModelError};

/// `config.json` as it lies on disk.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HuggingFace {
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
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

/// A token id, or a list of them.
pub(super) fn token_ids(value: &Value) -> Option<Vec<u32>> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Null => Some(Vec::new()),
        Value::Array(ids) => ids.iter().map(id).collect(),
        one => Some(vec![id(one)?]),
    }
}

/// The numbers of LLaMA 3.1's stretched frequencies, if it is these and they are whole.
fn llama3(rope: &Value) -> Option<Llama3Scaling> {
    let kind = rope.get("rope_type").or(rope.get("type"))?;
    let number = |key: &str| rope.get(key)?.as_f64();
    let context = rope.get("original_max_position_embeddings")?.as_u64()?;
    (kind == "llama3").then_some(Llama3Scaling {
        factor: number("factor")?,
        low_freq_factor: number("low_freq_factor")?,
        high_freq_factor: number("high_freq_factor")?,
        original_context: usize::try_from(context).ok()?,
    })
}

impl HuggingFace {
    pub(super) fn refuse_what_is_not_implemented(&self, path: &Path) -> Result<(), ModelError> {
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
            match kind.and_then(Value::as_str) {
                Some("default") => {}
                Some("llama3") if llama3(rope).is_some() => {}
                Some("llama3") => {
                    let needed = "llama3 needs the numbers factor, low_freq_factor, \
                        high_freq_factor and original_max_position_embeddings";
                    return refuse(key, rope.to_string(), needed);
                }
                None if kind.is_none() && key == "rope_parameters" => {}
                _ => {
                    let allowed = "allowed: none, or rope_type default or llama3";
                    return refuse(key, rope.to_string(), allowed);
                }
            }
        }
        if let Some(eos) = &self.eos_token_id
            && token_ids(eos).is_none()
        {
            let allowed = "allowed: a token id, or a list of them";
            return refuse("eos_token_id", eos.to_string(), allowed);
        }
        Ok(())
    }

    pub(super) fn into_config(self) -> ModelConfig {
        let defaults = SolverOptions::default();
        let rope_parameters = self.rope_parameters.as_ref();
        let rope_theta = self
            .rope_theta
            .or_else(|| rope_parameters?.get("rope_theta")?.as_f64())
            .unwrap_or(1e4);
        let eos_token_ids = self.eos_token_id.as_ref().and_then(token_ids);
        let rope = self.rope_scaling.as_ref().or(rope_parameters);
        let rope_scaling = rope.and_then(llama3);
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
            rope_scaling,
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
            eos_token_ids: eos_token_ids.unwrap_or_default(),
        }
    }

    pub(super) fn from_config(config: &ModelConfig) -> Self {
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
            eos_token_id: match config.eos_token_ids.as_slice() {
                [] => None,
                [only] => Some(Value::from(*only)),
                several => Some(Value::from(several)),
            },
            head_dim: None,
            attention_bias: false,
            mlp_bias: false,
            rope_scaling: config.rope_scaling.as_ref().map(|scaling| {
                json!({
                    "rope_type": "llama3",
                    "factor": scaling.factor,
                    "low_freq_factor": scaling.low_freq_factor,
                    "high_freq_factor": scaling.high_freq_factor,
                    "original_max_position_embeddings": scaling.original_context,
                })
            }),
            rope_parameters: None,
            quantization_config: None,
        }
    }
}
