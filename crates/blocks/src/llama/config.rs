//! The sizes of a LLaMA block, with the names of Hugging Face's `config.json`.
//!
//! Mistral's layer is LLaMA's, Qwen2's has biases on queries, keys and values, and Qwen3's has norms on
//! the heads of queries and keys and a width of a head that is its own. `others.rs` knows which file means
//! which.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::others::{Others, llama3};
use super::{Frequencies, Llama3Scaling};
use crate::block::table;
use crate::{BlockConfig, BlockCost, BlockError};

/// The sizes of a LLaMA block; its serde form has the names of `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LlamaConfig {
    /// Hidden width of the feed-forward layer.
    #[serde(rename = "intermediate_size")]
    pub d_ff: usize,
    /// Query heads.
    #[serde(rename = "num_attention_heads")]
    pub n_heads: usize,
    /// Key/value heads; must divide `n_heads`. Absent or null in multi-head checkpoints.
    #[serde(rename = "num_key_value_heads", skip_deserializing)]
    pub n_kv_heads: usize,
    /// RMSNorm's epsilon.
    #[serde(default = "default_eps")]
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    #[serde(default = "default_theta")]
    pub rope_theta: f64,
    /// The scaling of the rotary frequencies for long contexts, if any.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<Llama3Scaling>,
    /// What attention and feed-forward layer are multiplied by before they are added to the residual
    /// stream, as in Granite; LLaMA's is 1 and is not written.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub residual_multiplier: f64,
    /// Width of a head, where it is not `d_model / n_heads`.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Which projections of attention have biases.
    #[serde(skip)]
    pub attention_bias: AttentionBias,
    /// Whether the queries and the keys of each head have a norm, before they are rotated (Qwen3).
    #[serde(skip)]
    pub qk_norm: bool,
}

fn one() -> f64 {
    1.0
}

fn is_one(x: &f64) -> bool {
    *x == 1.0
}

/// Which projections of attention have biases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionBias {
    /// None: LLaMA.
    #[default]
    None,
    /// Those of queries, keys and values: Qwen2.
    Qkv,
    /// All four: `attention_bias` of LLaMA and Qwen3.
    All,
}

fn default_eps() -> f64 {
    1e-6
}

fn default_theta() -> f64 {
    1e4
}

impl Default for LlamaConfig {
    /// The sizes of the paper's 55m, with equal numbers of query and key/value heads.
    fn default() -> Self {
        Self {
            d_ff: 1408,
            n_heads: 4,
            n_kv_heads: 4,
            rms_norm_eps: default_eps(),
            rope_theta: default_theta(),
            rope_scaling: None,
            residual_multiplier: 1.0,
            head_dim: None,
            attention_bias: AttentionBias::None,
            qk_norm: false,
        }
    }
}

impl LlamaConfig {
    /// Width of a head.
    ///
    /// # Panics
    ///
    /// If there are no heads.
    pub fn head_width(&self, d_model: usize) -> usize {
        self.head_dim.unwrap_or_else(|| d_model / self.n_heads)
    }

    /// The rotary frequencies.
    ///
    /// # Panics
    ///
    /// If the width of a head is odd, which [`validate`](BlockConfig::validate) rejects.
    pub fn frequencies(&self, d_model: usize) -> Frequencies {
        let plain = Frequencies::new(self.head_width(d_model), self.rope_theta);
        match &self.rope_scaling {
            Some(scaling) => plain.scaled(scaling),
            None => plain,
        }
    }
}

impl BlockConfig for LlamaConfig {
    const NAME: &'static str = "llama";

    const MODEL_TYPES: &'static [&'static str] = &["mistral", "qwen2", "qwen3"];

    fn read(json: &str) -> Result<Self, BlockError> {
        let others = Others::read(json)?;
        let mut config: Self = serde_json::from_str(json)?;
        others.refuse_what_is_not_implemented()?;
        config.n_kv_heads = others.n_kv_heads(config.n_heads);
        config.head_dim = others.head_dim(config.n_heads);
        config.attention_bias = others.biases();
        config.qk_norm = others.has_qk_norm();
        let rope_parameters = others.rope_parameters.as_ref();
        config.rope_theta = others
            .rope_theta
            .or_else(|| rope_parameters?.get("rope_theta")?.as_f64())
            .unwrap_or_else(default_theta);
        let rope = others.rope_scaling.as_ref().or(rope_parameters);
        config.rope_scaling = rope.and_then(llama3);
        Ok(config)
    }

    fn transformers(&self) -> Option<(&'static str, &'static str)> {
        match (self.attention_bias, self.qk_norm) {
            // Granite's, but for its other multipliers.
            _ if self.residual_multiplier != 1.0 => None,
            (AttentionBias::None | AttentionBias::All, false) => {
                Some(("llama", "LlamaForCausalLM"))
            }
            (AttentionBias::Qkv, false) => Some(("qwen2", "Qwen2ForCausalLM")),
            (AttentionBias::None | AttentionBias::All, true) => Some(("qwen3", "Qwen3ForCausalLM")),
            (AttentionBias::Qkv, true) => None,
        }
    }

    fn write(&self) -> Map<String, Value> {
        let mut keys = table(self);
        keys.insert("hidden_act".into(), "silu".into());
        match self.attention_bias {
            AttentionBias::None => None,
            AttentionBias::Qkv => keys.insert("qkv_bias".into(), true.into()),
            AttentionBias::All => keys.insert("attention_bias".into(), true.into()),
        };
        if self.qk_norm {
            keys.insert("qk_norm".into(), true.into());
        }
        keys
    }

    fn validate(&self, d_model: usize) -> Result<(), BlockError> {
        let refuse = |key, found: String, allowed: String| {
            Err(BlockError::Value {
                key,
                found,
                allowed,
            })
        };
        let Self {
            d_ff,
            n_heads,
            n_kv_heads,
            ..
        } = *self;
        for (key, size) in [
            ("d_ff (intermediate_size)", d_ff),
            ("n_heads (num_attention_heads)", n_heads),
            ("n_kv_heads (num_key_value_heads)", n_kv_heads),
        ] {
            if size == 0 || size > 1 << 20 {
                return refuse(key, size.to_string(), "allowed: 1 to 1048576".into());
            }
        }
        if let Some(head_dim) = self.head_dim {
            let most = (1 << 20) / n_heads;
            if head_dim == 0 || !head_dim.is_multiple_of(2) || head_dim > most {
                let allowed = format!("allowed: an even number from 2 to {most}");
                return refuse("head_dim", head_dim.to_string(), allowed);
            }
        } else if !d_model.is_multiple_of(n_heads) || !(d_model / n_heads).is_multiple_of(2) {
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
        // Computed in f32, where 1e308 is infinite.
        for (key, value, most) in [
            ("rms_norm_eps", self.rms_norm_eps, 1e3),
            ("rope_theta", self.rope_theta, 1e30),
            ("residual_multiplier", self.residual_multiplier, 1e3),
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
                return refuse("rope_scaling", scaling.to_string(), allowed.into());
            }
        }
        Ok(())
    }

    fn norm_eps(&self) -> f64 {
        self.rms_norm_eps
    }

    fn cost(&self, d_model: usize, seq: usize) -> BlockCost {
        let q_width = self.head_width(d_model) * self.n_heads;
        let kv_width = self.head_width(d_model) * self.n_kv_heads;
        let projections = 2 * d_model * (q_width + kv_width) + 3 * d_model * self.d_ff;
        // Scores and weighted values, for the (seq + 1) / 2 tokens that a token attends to on average.
        let attention = 2.0 * q_width as f64 * (seq as f64 + 1.0);
        BlockCost {
            flops_per_token: 2.0 * projections as f64 + attention,
            cache_bytes_per_token: (2 * kv_width * size_of::<f32>()) as u64,
            // Inputs and outputs of both norms; queries, keys, values, attention's output and its denominators;
            // and gate, value and product of the feed-forward layer.
            activations_per_token: (4 * d_model
                + 2 * q_width
                + 2 * kv_width
                + 3 * self.d_ff
                + self.n_heads) as u64,
        }
    }
}
