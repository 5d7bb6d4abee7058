//! The sizes of a LLaMA block, in the words of Hugging Face's `config.json`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Frequencies, Llama3Scaling};
use crate::block::table;
use crate::{BlockConfig, BlockCost, BlockError};

/// The sizes of a LLaMA block; its serde form has the names of `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LlamaConfig {
    /// Width inside the feed-forward layer.
    #[serde(rename = "intermediate_size")]
    pub d_ff: usize,
    /// Query heads.
    #[serde(rename = "num_attention_heads")]
    pub n_heads: usize,
    /// Key/value heads; divides `n_heads`. Absent or null in multi-head checkpoints.
    #[serde(rename = "num_key_value_heads", skip_deserializing)]
    pub n_kv_heads: usize,
    /// What RMSNorm adds to the mean square.
    #[serde(default = "default_eps")]
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    #[serde(default = "default_theta")]
    pub rope_theta: f64,
    /// How the rotary frequencies are stretched for long contexts, if they are.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<Llama3Scaling>,
    /// What attention and feed-forward layer are multiplied by before they are added to the residual
    /// stream, as in Granite; LLaMA's is 1 and is not written.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub residual_multiplier: f64,
}

fn one() -> f64 {
    1.0
}

fn is_one(x: &f64) -> bool {
    *x == 1.0
}

fn default_eps() -> f64 {
    1e-6
}

fn default_theta() -> f64 {
    1e4
}

impl Default for LlamaConfig {
    /// The sizes of the paper's 55m, with as many key/value heads as query heads.
    fn default() -> Self {
        Self {
            d_ff: 1408,
            n_heads: 4,
            n_kv_heads: 4,
            rms_norm_eps: default_eps(),
            rope_theta: default_theta(),
            rope_scaling: None,
            residual_multiplier: 1.0,
        }
    }
}

/// Keys of LLaMA configurations that are looked at, but not kept as they are.
#[derive(Deserialize)]
struct Others {
    #[serde(default)]
    hidden_size: usize,
    #[serde(default)]
    num_key_value_heads: Option<usize>,
    #[serde(default)]
    hidden_act: Option<String>,
    #[serde(default)]
    head_dim: Option<usize>,
    #[serde(default)]
    attention_bias: Option<bool>,
    #[serde(default)]
    mlp_bias: Option<bool>,
    #[serde(default)]
    rope_theta: Option<f64>,
    #[serde(default)]
    rope_scaling: Option<Value>,
    /// Where newer checkpoints keep `rope_theta` and `rope_type`.
    #[serde(default)]
    rope_parameters: Option<Value>,
}

impl Others {
    fn refuse_what_is_not_implemented(&self, n_heads: usize) -> Result<(), BlockError> {
        let refuse = |key: &str, found: String, allowed: &str| {
            Err(BlockError::Unsupported {
                key: key.into(),
                found,
                allowed: allowed.into(),
            })
        };
        if let Some(act) = self.hidden_act.as_ref().filter(|act| *act != "silu") {
            return refuse("hidden_act", act.clone(), "allowed: silu");
        }
        for (key, bias) in [
            ("attention_bias", self.attention_bias),
            ("mlp_bias", self.mlp_bias),
        ] {
            if bias == Some(true) {
                return refuse(key, "true".into(), "projections have no biases here");
            }
        }
        if let (Some(head_dim), heads @ 1..) = (self.head_dim, n_heads)
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
        Ok(())
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

impl LlamaConfig {
    /// The frequencies that positions are rotated with.
    ///
    /// # Panics
    ///
    /// If the width of a head is odd, which [`validate`](BlockConfig::validate) refuses.
    pub fn frequencies(&self, d_model: usize) -> Frequencies {
        let plain = Frequencies::new(d_model / self.n_heads, self.rope_theta);
        match &self.rope_scaling {
            Some(scaling) => plain.scaled(scaling),
            None => plain,
        }
    }
}

impl BlockConfig for LlamaConfig {
    const NAME: &'static str = "llama";

    fn is_llama_layer(&self) -> bool {
        self.residual_multiplier == 1.0
    }

    fn read(json: &str) -> Result<Self, BlockError> {
        let others: Others = serde_json::from_str(json)?;
        let mut config: Self = serde_json::from_str(json)?;
        others.refuse_what_is_not_implemented(config.n_heads)?;
        config.n_kv_heads = others.num_key_value_heads.unwrap_or(config.n_heads);
        let rope_parameters = others.rope_parameters.as_ref();
        config.rope_theta = others
            .rope_theta
            .or_else(|| rope_parameters?.get("rope_theta")?.as_f64())
            .unwrap_or_else(default_theta);
        let rope = others.rope_scaling.as_ref().or(rope_parameters);
        config.rope_scaling = rope.and_then(llama3);
        Ok(config)
    }

    fn write(&self) -> Map<String, Value> {
        let mut keys = table(self);
        keys.insert("hidden_act".into(), "silu".into());
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
                return refuse("rope_scaling", format!("{scaling:?}"), allowed.into());
            }
        }
        Ok(())
    }

    fn norm_eps(&self) -> f64 {
        self.rms_norm_eps
    }

    fn cost(&self, d_model: usize, seq: usize) -> BlockCost {
        let kv_width = d_model / self.n_heads * self.n_kv_heads;
        let projections = 2 * d_model * (d_model + kv_width) + 3 * d_model * self.d_ff;
        // Scores and mixing, for the (seq + 1) / 2 tokens that a causal token sees on average.
        let attention = 2.0 * d_model as f64 * (seq as f64 + 1.0);
        BlockCost {
            flops_per_token: 2.0 * projections as f64 + attention,
            cache_bytes_per_token: (2 * kv_width * size_of::<f32>()) as u64,
            // The inputs of both norms, of the projections and of attention, and of the
            // feed-forward layer gate, value and product.
            activations_per_token: (12 * d_model + 3 * self.d_ff) as u64,
        }
    }
}
