//! Keys of `config.json` that say how a family of models differs from LLaMA, and what of them is not
//! implemented.
//!
//! A file names its family by `model_type`. Defaults of keys that are not there are those of the family's
//! configuration class in `transformers`. Models of this project (`iiet`) have keys of their own, `qkv_bias`
//! and `qk_norm`, because no family is named there.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{AttentionBias, Llama3Scaling};
use crate::BlockError;

/// Families whose block is implemented.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    /// `llama`, and `iiet`.
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
}

/// The keys that are looked at, but not kept as they are.
#[derive(Deserialize)]
pub(super) struct Others {
    #[serde(default)]
    model_type: Option<String>,
    #[serde(default)]
    hidden_size: usize,
    #[serde(default)]
    max_position_embeddings: Option<usize>,
    #[serde(default)]
    num_key_value_heads: Option<usize>,
    #[serde(default)]
    hidden_act: Option<String>,
    #[serde(default)]
    head_dim: Option<usize>,
    #[serde(default)]
    attention_bias: Option<bool>,
    #[serde(default)]
    qkv_bias: Option<bool>,
    #[serde(default)]
    qk_norm: Option<bool>,
    #[serde(default)]
    mlp_bias: Option<bool>,
    #[serde(default)]
    sliding_window: Option<usize>,
    #[serde(default)]
    use_sliding_window: Option<bool>,
    #[serde(default)]
    layer_types: Option<Vec<String>>,
    #[serde(default)]
    pub(super) rope_theta: Option<f64>,
    #[serde(default)]
    pub(super) rope_scaling: Option<Value>,
    /// Where newer checkpoints keep `rope_theta` and `rope_type`.
    #[serde(default)]
    pub(super) rope_parameters: Option<Value>,
    /// To tell a key that is null from one that is not there.
    #[serde(skip)]
    keys: Map<String, Value>,
}

impl Others {
    pub(super) fn read(json: &str) -> Result<Self, BlockError> {
        let others: Self = serde_json::from_str(json)?;
        let keys = serde_json::from_str(json)?;
        Ok(Self { keys, ..others })
    }

    fn family(&self) -> Family {
        match self.model_type.as_deref() {
            Some("mistral") => Family::Mistral,
            Some("qwen2") => Family::Qwen2,
            Some("qwen3") => Family::Qwen3,
            _ => Family::Llama,
        }
    }

    pub(super) fn n_kv_heads(&self, n_heads: usize) -> usize {
        let of_family = match self.family() {
            _ if self.keys.contains_key("num_key_value_heads") => None,
            Family::Llama => None,
            Family::Mistral => Some(8),
            Family::Qwen2 | Family::Qwen3 => Some(32),
        };
        self.num_key_value_heads.or(of_family).unwrap_or(n_heads)
    }

    /// The width of a head, if it is not what the sizes give.
    pub(super) fn head_dim(&self, n_heads: usize) -> Option<usize> {
        let of_family = match self.family() {
            Family::Qwen3 if !self.keys.contains_key("head_dim") => Some(128),
            _ => None,
        };
        let head_dim = self.head_dim.or(of_family)?;
        (Some(self.hidden_size) != head_dim.checked_mul(n_heads)).then_some(head_dim)
    }

    pub(super) fn biases(&self) -> AttentionBias {
        match self.family() {
            Family::Mistral => AttentionBias::None,
            Family::Qwen2 => AttentionBias::Qkv,
            Family::Llama | Family::Qwen3 if self.attention_bias == Some(true) => {
                AttentionBias::All
            }
            Family::Llama if self.qkv_bias == Some(true) => AttentionBias::Qkv,
            Family::Llama | Family::Qwen3 => AttentionBias::None,
        }
    }

    pub(super) fn has_qk_norm(&self) -> bool {
        self.family() == Family::Qwen3 || self.qk_norm == Some(true)
    }

    /// Tokens that a token sees, where they are fewer than the context.
    fn window(&self) -> Option<usize> {
        let window = match self.family() {
            Family::Llama => None,
            Family::Mistral if !self.keys.contains_key("sliding_window") => Some(4096),
            Family::Mistral => self.sliding_window,
            Family::Qwen2 | Family::Qwen3 => {
                let used = self.use_sliding_window == Some(true);
                used.then(|| self.sliding_window.unwrap_or(4096))
            }
        };
        window.filter(|window| *window < self.max_position_embeddings.unwrap_or(2048))
    }

    pub(super) fn refuse_what_is_not_implemented(&self) -> Result<(), BlockError> {
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
        if self.mlp_bias == Some(true) {
            let allowed = "projections of the feed-forward layer have no biases here";
            return refuse("mlp_bias", "true".into(), allowed);
        }
        if let Some(window) = self.window() {
            let allowed = format!(
                "attention reaches over the whole context here, which is the same up to {window} tokens: \
                 lower max_position_embeddings to {window}"
            );
            return refuse("sliding_window", window.to_string(), &allowed);
        }
        let types = self.layer_types.iter().flatten();
        let mut others = types.filter(|kind| *kind != "full_attention");
        // Where the window is not below the context, all types are alike.
        if let Some(kind) = others.next().filter(|kind| *kind != "sliding_attention") {
            return refuse("layer_types", kind.clone(), "allowed: full_attention");
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
pub(super) fn llama3(rope: &Value) -> Option<Llama3Scaling> {
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
