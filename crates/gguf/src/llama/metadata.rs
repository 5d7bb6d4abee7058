//! The sizes of a LLaMA model as GGUF metadata, with the keys of llama.cpp's architecture `llama`.

use super::{Llama3Scaling, LlamaSizes, recovered_scaling, rope_factors};
use crate::GgufError;
use crate::metadata::{Array, Metadata, Value};

const ARCHITECTURE: &str = "general.architecture";
const LLAMA: &str = "llama";
/// LLaMA 3.1's scaling, for which llama.cpp has no keys, only the tensor with the factors. It ignores these.
const SCALING: &str = "iiet.rope_scaling";

impl LlamaSizes {
    /// The keys of the architecture. The tokenizer's, which include BOS and EOS, are not among them.
    pub fn to_metadata(&self) -> Metadata {
        let mut metadata = Metadata::new();
        metadata.set(ARCHITECTURE, LLAMA);
        // `check` keeps sizes below 2^32.
        let mut size = |key: &str, size: usize| metadata.set(format!("llama.{key}"), size as u32);
        size("vocab_size", self.vocab_size);
        size("context_length", self.seq_len);
        size("embedding_length", self.d_model);
        size("block_count", self.n_layers);
        size("feed_forward_length", self.d_ff);
        size("attention.head_count", self.n_heads);
        size("attention.head_count_kv", self.n_kv_heads);
        size("attention.key_length", self.head_dim);
        size("attention.value_length", self.head_dim);
        size("rope.dimension_count", self.head_dim);
        metadata.set("llama.rope.freq_base", self.rope_theta as f32);
        metadata.set(
            "llama.attention.layer_norm_rms_epsilon",
            self.rms_norm_eps as f32,
        );
        if let Some(scaling) = &self.rope_scaling {
            let mut number = |key: &str, x: f64| {
                metadata.set(format!("{SCALING}.{key}"), Value::F64(x));
            };
            number("factor", scaling.factor);
            number("low_freq_factor", scaling.low_freq_factor);
            number("high_freq_factor", scaling.high_freq_factor);
            let context = scaling.original_context as u32;
            metadata.set(format!("{SCALING}.original_context"), context);
        }
        metadata
    }

    /// Reads the keys of the architecture, and BOS and EOS.
    ///
    /// `factors` are the values of `rope_freqs.weight`, if the file has that tensor; `tied` is whether it has no
    /// `output.weight`.
    ///
    /// # Errors
    ///
    /// [`GgufError::Metadata`] with the key, its value and what is allowed.
    pub fn from_metadata(
        metadata: &Metadata,
        factors: Option<&[f32]>,
        tied: bool,
    ) -> Result<Self, GgufError> {
        check_kind(metadata)?;
        let optional = |key: &str| -> Result<Option<usize>, GgufError> {
            let key = format!("llama.{key}");
            let size = metadata.optional_u64(&key)?;
            let refuse = |n| GgufError::metadata(&key, n, "allowed: at most 4294967295");
            size.map(|n| u32::try_from(n).map(|n| n as usize).map_err(|_| refuse(n)))
                .transpose()
        };
        let size = |key: &str| {
            let found = optional(key)?;
            let key = format!("llama.{key}");
            found.ok_or_else(|| GgufError::metadata(key, "nothing", "allowed: an integer"))
        };
        let (d_model, n_heads) = (size("embedding_length")?, size("attention.head_count")?);
        let head_dim = match optional("attention.key_length")? {
            Some(head_dim) => head_dim,
            None => d_model.checked_div(n_heads).unwrap_or(0),
        };
        for key in ["attention.value_length", "rope.dimension_count"] {
            if let Some(other) = optional(key)?.filter(|other| *other != head_dim) {
                let allowed = format!("allowed: the width of a head, {head_dim}");
                return Err(GgufError::metadata(format!("llama.{key}"), other, allowed));
            }
        }
        let tokens = match metadata.get("tokenizer.ggml.tokens") {
            Some(Value::Array(Array::String(tokens))) => Some(tokens.len()),
            _ => None,
        };
        let mut sizes = Self {
            vocab_size: match optional("vocab_size")?.or(tokens) {
                Some(size) => size,
                None => size("vocab_size")?,
            },
            d_model,
            d_ff: size("feed_forward_length")?,
            n_layers: size("block_count")?,
            n_heads,
            n_kv_heads: optional("attention.head_count_kv")?.unwrap_or(n_heads),
            head_dim,
            seq_len: size("context_length")?,
            rms_norm_eps: {
                let key = "llama.attention.layer_norm_rms_epsilon";
                let missing = || GgufError::metadata(key, "nothing", "allowed: a number");
                metadata.optional_f64(key)?.ok_or_else(missing)?
            },
            rope_theta: metadata
                .optional_f64("llama.rope.freq_base")?
                .unwrap_or(1e4),
            rope_scaling: None,
            tie_embeddings: tied,
            bos_token_id: id(metadata, "bos")?,
            eos_token_ids: Vec::new(),
        };
        for end in ["eos", "eot", "eom"] {
            let id = id(metadata, end)?;
            let new = id.filter(|id| !sizes.eos_token_ids.contains(id));
            sizes.eos_token_ids.extend(new);
        }
        let check = |sizes: &Self| {
            let fault = sizes.check();
            fault.map_err(|(key, found, allowed)| GgufError::metadata(key, found, allowed))
        };
        check(&sizes)?;
        if let Some(factors) = factors {
            let written = read_scaling(metadata)?;
            let matching = written.filter(|scaling| rope_factors(&sizes, scaling) == factors);
            sizes.rope_scaling = match matching {
                Some(scaling) => Some(scaling),
                None => Some(recovered_scaling(&sizes, factors)?),
            };
            check(&sizes)?;
        }
        Ok(sizes)
    }
}

/// Refuses other architectures, and what the blocks of this project's models do not have.
fn check_kind(metadata: &Metadata) -> Result<(), GgufError> {
    let found = metadata.optional_str(ARCHITECTURE)?;
    if found != Some(LLAMA) {
        let found = found.unwrap_or("nothing");
        return Err(GgufError::metadata(ARCHITECTURE, found, "allowed: llama"));
    }
    for (key, most, allowed) in [
        ("split.count", 1, "allowed: one file; merge the parts first"),
        ("llama.expert_count", 0, "allowed: 0, dense models"),
        (
            "llama.attention.sliding_window",
            0,
            "allowed: attention over the whole context",
        ),
    ] {
        if let Some(found) = metadata.optional_u64(key)?.filter(|n| *n > most) {
            return Err(GgufError::metadata(key, found, allowed));
        }
    }
    let key = "llama.rope.scaling.type";
    match metadata.optional_str(key)? {
        None | Some("none") => Ok(()),
        Some(found) => Err(GgufError::metadata(key, found, "allowed: none")),
    }
}

/// A special token; ids outside the vocabulary are refused by `check`.
fn id(metadata: &Metadata, name: &str) -> Result<Option<u32>, GgufError> {
    let key = format!("tokenizer.ggml.{name}_token_id");
    let refuse = |id: u64| GgufError::metadata(&key, id, "allowed: ids of tokens");
    let id = metadata.optional_u64(&key)?;
    id.map(|id| u32::try_from(id).map_err(|_| refuse(id)))
        .transpose()
}

/// The numbers that `to_metadata` writes.
fn read_scaling(metadata: &Metadata) -> Result<Option<Llama3Scaling>, GgufError> {
    let number = |key: &str| metadata.optional_f64(&format!("{SCALING}.{key}"));
    let context = metadata.optional_u64(&format!("{SCALING}.original_context"))?;
    let numbers = (
        number("factor")?,
        number("low_freq_factor")?,
        number("high_freq_factor")?,
        context.and_then(|n| usize::try_from(n).ok()),
    );
    Ok(match numbers {
        (Some(factor), Some(low_freq_factor), Some(high_freq_factor), Some(original_context)) => {
            Some(Llama3Scaling {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_context,
            })
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::sizes;
    use super::*;

    fn with_tokens(sizes: &LlamaSizes) -> Metadata {
        let mut metadata = sizes.to_metadata();
        metadata.set("tokenizer.ggml.bos_token_id", 1);
        metadata.set("tokenizer.ggml.eos_token_id", 0);
        metadata.set("tokenizer.ggml.eot_token_id", 2);
        metadata
    }

    #[test]
    fn what_is_written_is_read() {
        let sizes = sizes();
        let metadata = with_tokens(&sizes);
        let factors = rope_factors(&sizes, &sizes.rope_scaling.unwrap());
        let read = LlamaSizes::from_metadata(&metadata, Some(&factors), true);
        assert_eq!(read.unwrap(), sizes);
        assert_eq!(
            metadata.get("llama.embedding_length"),
            Some(&Value::U32(32))
        );
        assert_eq!(
            metadata.get("llama.attention.head_count_kv"),
            Some(&Value::U32(2))
        );
        let epsilon = metadata.get("llama.attention.layer_norm_rms_epsilon");
        assert_eq!(epsilon, Some(&Value::F32(1e-5)));
    }

    #[test]
    fn what_the_blocks_do_not_have_is_refused() {
        for (key, value, expected) in [
            (
                ARCHITECTURE,
                Value::from("qwen3"),
                "found qwen3; allowed: llama",
            ),
            ("llama.expert_count", 8.into(), "found 8; allowed: 0"),
            ("split.count", 3.into(), "found 3; allowed: one file"),
            (
                "llama.rope.scaling.type",
                "yarn".into(),
                "found yarn; allowed: none",
            ),
            (
                "llama.rope.dimension_count",
                4.into(),
                "allowed: the width of a head, 8",
            ),
            (
                "llama.block_count",
                Value::U64(1 << 40),
                "found 1099511627776",
            ),
            ("llama.block_count", 0.into(), "num_hidden_layers: found 0"),
            (
                "llama.attention.head_count",
                0.into(),
                "num_attention_heads: found 0",
            ),
            (
                "tokenizer.ggml.eos_token_id",
                300.into(),
                "eos_token_id: found 300",
            ),
            (
                "llama.rope.freq_base",
                Value::F32(f32::NAN),
                "rope_theta: found NaN",
            ),
        ] {
            let mut metadata = with_tokens(&sizes());
            metadata.set(key, value);
            let error = LlamaSizes::from_metadata(&metadata, None, true).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        let error = LlamaSizes::from_metadata(&Metadata::new(), None, true).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("general.architecture: found nothing")
        );
    }
}
