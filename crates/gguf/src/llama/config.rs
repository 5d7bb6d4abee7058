//! The sizes of a LLaMA model, and `config.json`.
//!
//! Only what llama.cpp's architecture `llama` computes is accepted: rotary embedding, RMSNorm, SwiGLU, no biases,
//! and plain residual connections. ODE transformers under another solver than explicit Euler are refused.

#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::GgufError;

/// The sizes of a LLaMA model.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaSizes {
    /// Vocabulary size, in tokens.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Hidden width of the feed-forward layer.
    pub d_ff: usize,
    /// Number of layers.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads, which divide the query heads.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Context length, in tokens.
    pub seq_len: usize,
    /// RMSNorm's epsilon.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// LLaMA 3.1's scaling of the rotary frequencies.
    pub rope_scaling: Option<Llama3Scaling>,
    /// Whether the output projection shares the embedding's weights.
    pub tie_embeddings: bool,
    /// The token that begins a text.
    pub bos_token_id: Option<u32>,
    /// The tokens that end a text.
    pub eos_token_ids: Vec<u32>,
}

/// LLaMA 3.1's scaling of the rotary frequencies (*The Llama 3 Herd of Models*, arXiv 2407.21783).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Llama3Scaling {
    /// The factor for long wavelengths.
    pub factor: f64,
    /// Rotations within the original context below which a frequency is low.
    pub low_freq_factor: f64,
    /// Rotations within the original context above which a frequency is high.
    pub high_freq_factor: f64,
    /// The context of the initial training, in tokens.
    pub original_context: usize,
}

/// The keys of `config.json` that are looked at.
#[derive(Deserialize)]
struct Json {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Value>,
    rope_parameters: Option<Value>,
    tie_word_embeddings: Option<bool>,
    bos_token_id: Option<u32>,
    eos_token_id: Option<Ids>,
}

/// `eos_token_id`: one id or several.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "eos_token_id has another type; allowed: a token id, or a list of them"
)]
enum Ids {
    One(u32),
    Several(Vec<u32>),
}

impl Ids {
    fn all(found: Option<Self>) -> Vec<u32> {
        match found {
            None => Vec::new(),
            Some(Self::One(only)) => vec![only],
            Some(Self::Several(several)) => several,
        }
    }
}

/// Keys that must have one of a few values where they are there: the key, the values, the reason.
type Rule = (&'static str, &'static [&'static str], &'static str);
const RULES: &[Rule] = &[
    (
        "solver",
        &["\"explicit_euler\""],
        "allowed: explicit_euler. llama.cpp has no ODE solvers; its layers are y + f(y)",
    ),
    (
        "model_type",
        &["\"llama\"", "\"iiet\""],
        "allowed: llama, iiet. Other families have architectures of their own in llama.cpp",
    ),
    ("block", &["\"llama\""], "allowed: llama"),
    ("is_encoder_decoder", &["false"], "allowed: false"),
    ("hidden_act", &["\"silu\""], "allowed: silu"),
    ("attention_bias", &["false"], "allowed: false"),
    ("qkv_bias", &["false"], "allowed: false"),
    ("mlp_bias", &["false"], "allowed: false"),
    ("qk_norm", &["false"], "allowed: false"),
    ("residual_multiplier", &["1", "1.0"], "allowed: 1"),
    (
        "sliding_window",
        &[],
        "attention must reach over the whole context",
    ),
];

impl LlamaSizes {
    /// Reads the text of a `config.json`; `path` is used in messages. A `quantization_config` is not looked at: it
    /// changes no size.
    ///
    /// # Errors
    ///
    /// [`GgufError::Json`] with line and column; [`GgufError::Config`] with the key, its value and what is
    /// allowed, if llama.cpp's `llama` cannot represent the model.
    pub fn from_json(text: &str, path: &Path) -> Result<Self, GgufError> {
        let refuse = |key: &str, found: String, allowed: &str| GgufError::Config {
            path: path.to_owned(),
            key: key.to_owned(),
            found,
            allowed: allowed.to_owned(),
        };
        let keys: Map<String, Value> = serde_json::from_str(text).map_err(GgufError::json(path))?;
        for (key, values, allowed) in RULES {
            let found = keys.get(*key).filter(|value| !value.is_null());
            let Some(found) = found.map(Value::to_string) else {
                continue;
            };
            if !values.contains(&found.as_str()) {
                return Err(refuse(key, found, allowed));
            }
        }
        let json: Json = serde_json::from_str(text).map_err(GgufError::json(path))?;
        let rope = json.rope_scaling.as_ref();
        let rope = rope.map(|value| ("rope_scaling", value));
        let rope = rope.or(json
            .rope_parameters
            .as_ref()
            .map(|x| ("rope_parameters", x)));
        let scaling = match rope {
            None => None,
            Some((key, value)) => {
                read_scaling(value).map_err(|allowed| refuse(key, value.to_string(), allowed))?
            }
        };
        let theta = || json.rope_parameters.as_ref()?.get("rope_theta")?.as_f64();
        let sizes = Self {
            vocab_size: json.vocab_size,
            d_model: json.hidden_size,
            d_ff: json.intermediate_size,
            n_layers: json.num_hidden_layers,
            n_heads: json.num_attention_heads,
            n_kv_heads: json.num_key_value_heads.unwrap_or(json.num_attention_heads),
            head_dim: match json.head_dim {
                Some(head_dim) => head_dim,
                None => json
                    .hidden_size
                    .checked_div(json.num_attention_heads)
                    .unwrap_or(0),
            },
            seq_len: json.max_position_embeddings.unwrap_or(2048),
            rms_norm_eps: json.rms_norm_eps.unwrap_or(1e-6),
            rope_theta: json.rope_theta.or_else(theta).unwrap_or(1e4),
            rope_scaling: scaling,
            tie_embeddings: json.tie_word_embeddings.unwrap_or(false),
            bos_token_id: json.bos_token_id,
            eos_token_ids: Ids::all(json.eos_token_id),
        };
        let checked = sizes.check();
        checked.map_err(|(key, found, allowed)| refuse(key, found, &allowed))?;
        Ok(sizes)
    }

    /// The `eos_token_id` in the text of a `generation_config.json`, which chat models use instead of that in
    /// `config.json`; empty if it is not there.
    ///
    /// # Errors
    ///
    /// [`GgufError::Json`].
    pub fn ends_from_generation_json(text: &str, path: &Path) -> Result<Vec<u32>, GgufError> {
        #[derive(Deserialize)]
        struct Generation {
            eos_token_id: Option<Ids>,
        }
        let generation: Generation = serde_json::from_str(text).map_err(GgufError::json(path))?;
        Ok(Ids::all(generation.eos_token_id))
    }

    /// The text of a `config.json`, with its keys in alphabetical order.
    pub fn to_json(&self) -> String {
        let text = serde_json::to_string_pretty(&self.to_value());
        text.expect("invariant: plain data serialises") + "\n"
    }

    /// The same as a value.
    pub(crate) fn to_value(&self) -> Value {
        let mut keys = json!({
            "architectures": ["LlamaForCausalLM"],
            "bos_token_id": self.bos_token_id,
            "hidden_act": "silu",
            "hidden_size": self.d_model,
            "intermediate_size": self.d_ff,
            "max_position_embeddings": self.seq_len,
            "model_type": "llama",
            "num_attention_heads": self.n_heads,
            "num_hidden_layers": self.n_layers,
            "num_key_value_heads": self.n_kv_heads,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tie_embeddings,
            "vocab_size": self.vocab_size,
        });
        keys["eos_token_id"] = match self.eos_token_ids.as_slice() {
            [] => Value::Null,
            [only] => json!(only),
            several => json!(several),
        };
        if self.n_heads.checked_mul(self.head_dim) != Some(self.d_model) {
            keys["head_dim"] = json!(self.head_dim);
        }
        if let Some(scaling) = &self.rope_scaling {
            keys["rope_scaling"] = json!({
                "rope_type": "llama3",
                "factor": scaling.factor,
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_context,
            });
        }
        keys
    }

    /// Checks that the sizes are those of a model; otherwise the key of `config.json`, what was found and what
    /// is allowed. Afterwards, products of any three sizes fit into 64 bits.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String, String)> {
        for (key, size) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.d_model),
            ("intermediate_size", self.d_ff),
            ("max_position_embeddings", self.seq_len),
            ("num_attention_heads", self.n_heads),
            ("num_key_value_heads", self.n_kv_heads),
        ] {
            // LLaMA 4 has contexts of ten million tokens.
            if !(1..=1 << 24).contains(&size) {
                return Err((key, size.to_string(), "allowed: 1 to 16777216".into()));
            }
        }
        if !(1..=1 << 12).contains(&self.n_layers) {
            let found = self.n_layers.to_string();
            return Err(("num_hidden_layers", found, "allowed: 1 to 4096".into()));
        }
        if !(2..=1 << 16).contains(&self.head_dim) || !self.head_dim.is_multiple_of(2) {
            let allowed = "allowed: even, 2 to 65536; by default hidden_size / num_attention_heads";
            return Err(("head_dim", self.head_dim.to_string(), allowed.into()));
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            let allowed = format!("allowed: divisors of num_attention_heads, {}", self.n_heads);
            return Err(("num_key_value_heads", self.n_kv_heads.to_string(), allowed));
        }
        let numbers = [
            ("rms_norm_eps", self.rms_norm_eps, 1.0),
            ("rope_theta", self.rope_theta, 1e30),
        ];
        for (key, x, most) in numbers {
            if !(x > 0.0 && x <= most) {
                return Err((
                    key,
                    x.to_string(),
                    format!("allowed: above 0, at most {most:e}"),
                ));
            }
        }
        let ends = self.eos_token_ids.iter().map(|id| ("eos_token_id", *id));
        for (key, id) in self
            .bos_token_id
            .map(|id| ("bos_token_id", id))
            .into_iter()
            .chain(ends)
        {
            if id as usize >= self.vocab_size {
                let allowed = format!("allowed: below vocab_size, {}", self.vocab_size);
                return Err((key, id.to_string(), allowed));
            }
        }
        if let Some(s) = &self.rope_scaling {
            let whole = [s.factor, s.low_freq_factor, s.high_freq_factor];
            let positive = whole.iter().all(|x| *x > 0.0 && *x <= 1e6);
            let context = (1..=1 << 24).contains(&s.original_context);
            if !positive || !context || s.low_freq_factor >= s.high_freq_factor {
                let allowed = "allowed: positive numbers, low_freq_factor below high_freq_factor";
                return Err(("rope_scaling", format!("{s:?}"), allowed.into()));
            }
        }
        Ok(())
    }
}

/// LLaMA 3.1's numbers; none for the default frequencies.
fn read_scaling(value: &Value) -> Result<Option<Llama3Scaling>, &'static str> {
    let kind = value.get("rope_type").or(value.get("type"));
    match kind.and_then(Value::as_str) {
        None if kind.is_none() => return Ok(None),
        Some("default") => return Ok(None),
        Some("llama3") => {}
        _ => return Err("allowed: none, or rope_type default or llama3"),
    }
    let number = |key: &str| value.get(key)?.as_f64();
    let read = || {
        let context = value.get("original_max_position_embeddings")?.as_u64()?;
        Some(Llama3Scaling {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original_context: usize::try_from(context).ok()?,
        })
    };
    read().map(Some).ok_or(
        "llama3 needs the numbers factor, low_freq_factor, high_freq_factor and \
         original_max_position_embeddings",
    )
}
