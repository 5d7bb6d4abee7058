//! `[model]`: the sizes and the solver. With `[model.encoder]` it is an encoder-decoder, whose decoder the other
//! keys describe; without, a language model.

use iiet_model::{
    AttentionBias, EncoderDecoderConfig, Llama3Scaling, LlamaConfig, ModelConfig, Side, StackConfig,
};
use iiet_ode::SolverConfig;
use serde::{Deserialize, Serialize};

use crate::Vocabulary;

/// `[model]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// Width of the hidden states.
    pub d_model: usize,
    /// Hidden width of the feed-forward layer.
    pub d_ff: usize,
    /// Number of layers.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads; defaults to `n_heads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_kv_heads: Option<usize>,
    /// Tokens per training sequence, and the model's context length.
    pub seq_len: usize,
    /// Whether the output projection shares the embedding's weights.
    #[serde(default = "yes")]
    pub tie_embeddings: bool,
    /// RMSNorm's epsilon.
    #[serde(default = "default_eps")]
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    #[serde(default = "default_theta")]
    pub rope_theta: f64,
    /// What attention and feed-forward layer are multiplied by before they are added to the residual
    /// stream; 1 is LLaMA's, and is not written.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub residual_multiplier: f64,
    /// How the rotary frequencies are stretched for long contexts, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<Llama3Scaling>,
    /// Width of a head; `d_model / n_heads` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Which projections of attention have biases: none, qkv or all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub attention_bias: AttentionBias,
    /// Whether the heads of queries and keys have a norm.
    #[serde(default, skip_serializing_if = "is_default")]
    pub qk_norm: bool,
    /// Token ids; as many as the tokenizer has unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<usize>,
    /// Standard deviation of the initial weight matrices.
    #[serde(default = "default_range")]
    pub initializer_range: f64,
    /// The layer solver: a name, or a table with its name and options.
    pub solver: SolverConfig,
    /// The encoder of a sequence-to-sequence model; none for a language model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<EncoderSection>,
}

/// `[model.encoder]`: in what the encoder differs from the decoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderSection {
    /// Number of layers.
    pub n_layers: usize,
    /// The layer solver: a name, or a table with its name and options.
    pub solver: SolverConfig,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
fn yes() -> bool {
    true
}
fn one() -> f64 {
    1.0
}
fn is_one(x: &f64) -> bool {
    *x == 1.0
}
fn default_eps() -> f64 {
    LlamaConfig::default().rms_norm_eps
}
fn default_theta() -> f64 {
    LlamaConfig::default().rope_theta
}
fn default_range() -> f64 {
    ModelConfig::default().initializer_range
}

impl ModelSection {
    /// The section that describes a model, all but its vocabulary and its special tokens.
    pub fn of(config: &ModelConfig) -> Self {
        let block = &config.block;
        Self {
            d_model: config.d_model,
            d_ff: block.d_ff,
            n_layers: config.n_layers,
            n_heads: block.n_heads,
            n_kv_heads: Some(block.n_kv_heads),
            seq_len: config.seq_len,
            tie_embeddings: config.tie_embeddings,
            rms_norm_eps: block.rms_norm_eps,
            rope_theta: block.rope_theta,
            residual_multiplier: block.residual_multiplier,
            rope_scaling: block.rope_scaling,
            head_dim: block.head_dim,
            attention_bias: block.attention_bias,
            qk_norm: block.qk_norm,
            vocab_size: None,
            initializer_range: config.initializer_range,
            solver: config.solver.clone(),
            encoder: None,
        }
    }

    /// The section that describes an encoder-decoder, all but its vocabulary and its special tokens.
    pub fn of_sequences(config: &EncoderDecoderConfig) -> Self {
        let StackConfig { n_layers, solver } = config.encoder.clone();
        Self {
            encoder: Some(EncoderSection { n_layers, solver }),
            ..Self::of(&config.as_language_model(Side::Decoder))
        }
    }

    /// The configuration of an encoder-decoder, once the vocabulary is known. The token that ends a document
    /// also begins a target.
    ///
    /// # Panics
    ///
    /// If the section has no encoder.
    pub fn sequence_config(&self, vocabulary: Vocabulary) -> EncoderDecoderConfig {
        let of_decoder = self.config(vocabulary.size, vocabulary.document_end);
        let encoder = self.encoder.clone().expect("a section with an encoder");
        EncoderDecoderConfig {
            vocab_size: of_decoder.vocab_size,
            d_model: of_decoder.d_model,
            seq_len: of_decoder.seq_len,
            initializer_range: of_decoder.initializer_range,
            label_smoothing: 0.0,
            decoder_start_token_id: vocabulary.document_end,
            eos_token_ids: of_decoder.eos_token_ids,
            block: of_decoder.block,
            encoder: StackConfig {
                n_layers: encoder.n_layers,
                solver: encoder.solver,
            },
            decoder: StackConfig {
                n_layers: self.n_layers,
                solver: of_decoder.solver,
            },
        }
    }

    /// The model's configuration, once the tokenizer and the size of its vocabulary are known.
    pub fn config(&self, vocab_size: usize, document_end: Option<u32>) -> ModelConfig {
        ModelConfig {
            vocab_size: self.vocab_size.unwrap_or(vocab_size),
            d_model: self.d_model,
            n_layers: self.n_layers,
            seq_len: self.seq_len,
            initializer_range: self.initializer_range,
            tie_embeddings: self.tie_embeddings,
            bos_token_id: None,
            eos_token_ids: document_end.into_iter().collect(),
            block: LlamaConfig {
                d_ff: self.d_ff,
                n_heads: self.n_heads,
                n_kv_heads: self.n_kv_heads.unwrap_or(self.n_heads),
                rms_norm_eps: self.rms_norm_eps,
                rope_theta: self.rope_theta,
                residual_multiplier: self.residual_multiplier,
                rope_scaling: self.rope_scaling,
                head_dim: self.head_dim,
                attention_bias: self.attention_bias,
                qk_norm: self.qk_norm,
            },
            solver: self.solver.clone(),
        }
    }

    /// The same model with another solver.
    pub fn with_solver(&self, solver: SolverConfig) -> Self {
        Self {
            solver,
            ..self.clone()
        }
    }
}
