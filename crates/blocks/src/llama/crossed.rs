//! The decoder's layer of an encoder-decoder: a LLaMA layer with attention to the encoder's output.
//!
//! ```text
//! u    = y + Attention(RMSNorm(y))                 causal
//! v    = u + CrossAttention(RMSNorm(u), m)         m is the encoder's normalised output
//! G(y) = v + SwiGLU(RMSNorm(v))
//! ```
//!
//! Vaswani et al., *Attention Is All You Need* (arXiv 1706.03762), section 3.1, with the norms before the
//! branches. Cross-attention has no rotary positions. Its keys and values depend on the layer and on m, and
//! not on y, so all evaluations of a layer share them: they are computed once a layer
//! ([`Block::at_layer`]), or kept from one decoded token to the next ([`Memory::Kept`]).

use std::sync::Arc;

use burn::module::Module;
use burn::nn::{RmsNorm, RmsNormConfig};
use burn::tensor::{Device, Tensor};
use iiet_kernels::{Visibility, add, fan_out};
use iiet_ode::{Layer, Parameter, Parameters, Role, State, norm_parameter};
use serde::{Deserialize, Serialize};

use super::{
    Attention, KeyValueCache, LlamaBlock, LlamaConfig, LlamaContext, named, normalise, residual,
};
use crate::{
    Block, BlockConfig, BlockCost, BlockError, ContextDropout, Dropout, Evaluation, Place,
    Projection, Tokens,
};

/// A LLaMA layer, and cross-attention with its norm between the layer's two branches.
#[derive(Module, Debug)]
pub struct CrossedBlock {
    /// Causal attention, and the feed-forward layer.
    pub layer: LlamaBlock,
    /// The norm before cross-attention.
    pub encoder_attn_layer_norm: RmsNorm,
    /// Attention to the encoder's output.
    pub encoder_attn: Attention,
}

/// The sizes of a [`CrossedBlock`]: those of its LLaMA layer, which cross-attention shares.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CrossedConfig(pub LlamaConfig);

/// What all crossed layers of a pass share.
#[derive(Debug, Clone)]
pub struct CrossedContext {
    /// The decoder's own tokens.
    pub own: LlamaContext,
    /// What cross-attention attends to; without it, it is left out.
    pub memory: Option<Memory>,
}

/// The encoder's output as cross-attention sees it.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there is one in a pass")]
pub enum Memory {
    /// As the encoder computed it.
    States {
        /// m, `[batch, memory, d_model]`
        states: Tensor<3>,
        /// The tokens of each source.
        visible: Visibility,
    },
    /// The keys and values of one layer.
    Layer {
        /// `[batch, n_kv_heads, memory, head_dim]` each
        keys_and_values: [Tensor<4>; 2],
        /// The tokens of each source.
        visible: Visibility,
    },
    /// The keys and values of every layer, from an earlier pass.
    Kept {
        /// By layer; `[batch, n_kv_heads, memory, head_dim]` each.
        layers: Arc<Vec<[Tensor<4>; 2]>>,
        /// The tokens of each source.
        visible: Visibility,
    },
}

impl CrossedBlock {
    /// `c CrossAttention(RMSNorm(u), m)`, if there is an m.
    fn cross(&self, u: Tensor<3>, memory: &Memory, dropout: &ContextDropout) -> Tensor<3> {
        let x = normalise(&self.encoder_attn_layer_norm, u);
        let mask = dropout.mask(Place::CrossAttentionWeights);
        let mixed = match memory {
            Memory::States { states, visible } => {
                let keys_and_values = self.encoder_attn.of_memory(states.clone());
                self.encoder_attn.crossed(x, keys_and_values, visible, mask)
            }
            Memory::Layer {
                keys_and_values,
                visible,
            } => {
                let keys_and_values = keys_and_values.clone();
                self.encoder_attn.crossed(x, keys_and_values, visible, mask)
            }
            Memory::Kept { .. } => {
                panic!("the keys and values of all layers: at_layer has those of one")
            }
        };
        self.layer.branch(mixed, dropout, Place::CrossAttention)
    }

    /// The keys and values of this layer, unless there are none, or the memory has them already.
    fn memory_at(&self, memory: Option<&Memory>, layer: Layer) -> Option<Memory> {
        let (keys_and_values, visible) = match memory? {
            Memory::States { states, visible } => {
                let keys_and_values = self.encoder_attn.of_memory(states.clone());
                (keys_and_values, visible.clone())
            }
            Memory::Kept { layers, visible } => (layers[layer.index()].clone(), visible.clone()),
            Memory::Layer { .. } => return None,
        };
        Some(Memory::Layer {
            keys_and_values,
            visible,
        })
    }
}

impl Block for CrossedBlock {
    type Config = CrossedConfig;
    type Context = CrossedContext;
    type Cache = KeyValueCache;

    /// # Panics
    ///
    /// The same as for [`LlamaBlock`].
    fn init(CrossedConfig(config): &CrossedConfig, d_model: usize, device: &Device) -> Self {
        Self {
            layer: LlamaBlock::init(config, d_model, device),
            encoder_attn_layer_norm: RmsNormConfig::new(d_model)
                .with_epsilon(config.rms_norm_eps)
                .init(device),
            encoder_attn: Attention::init(config, d_model, device),
        }
    }

    /// The context of the decoder's own tokens; the caller adds the memory.
    fn context(
        CrossedConfig(config): &CrossedConfig,
        d_model: usize,
        tokens: Tokens,
        device: &Device,
    ) -> CrossedContext {
        CrossedContext {
            own: LlamaBlock::context(config, d_model, tokens, device),
            memory: None,
        }
    }

    fn with_dropout(
        context: CrossedContext,
        dropout: &Dropout,
    ) -> Result<CrossedContext, BlockError> {
        Ok(CrossedContext {
            own: context.own.with_dropout(dropout)?,
            ..context
        })
    }

    /// The keys and values of cross-attention in this layer, and dropout's masks.
    fn at_layer(&self, context: &CrossedContext, layer: Layer) -> Option<CrossedContext> {
        let memory = self.memory_at(context.memory.as_ref(), layer);
        let own = context.own.at_layer(layer);
        (memory.is_some() || own.is_some()).then(|| CrossedContext {
            own: own.unwrap_or_else(|| context.own.clone()),
            memory: memory.or_else(|| context.memory.clone()),
        })
    }

    fn constant(context: &CrossedContext) -> CrossedContext {
        CrossedContext {
            own: context.own.clone(),
            memory: context.memory.as_ref().map(Memory::constant),
        }
    }

    fn forward(&self, y: Tensor<3>, at: Evaluation<'_, Self>) -> Tensor<3> {
        let CrossedContext { own, memory } = at.context;
        let u = residual(y, |y| self.layer.attend(y, own, at.cache));
        let v = match memory {
            Some(memory) => residual(u, |u| self.cross(u, memory, own.dropout())),
            None => u,
        };
        residual(v, |v| self.layer.feed_forward(v, own.dropout()))
    }

    fn slope(&self, y: Tensor<3>, at: Evaluation<'_, Self>) -> Tensor<3> {
        let CrossedContext { own, memory } = at.context;
        let [y, y_of_cross, y_of_mlp] = fan_out(y);
        let mut slope = self.layer.attend(y, own, at.cache);
        if let Some(memory) = memory {
            slope = residual(slope, |slope| {
                self.cross(add(y_of_cross, slope), memory, own.dropout())
            });
        }
        residual(slope, |slope| {
            self.layer.feed_forward(add(y_of_mlp, slope), own.dropout())
        })
    }

    fn remember(&self, y: Tensor<3>, at: Evaluation<'_, Self>) {
        let own = Evaluation {
            context: &at.context.own,
            cache: at.cache,
            terms: at.terms,
        };
        self.layer.remember(y, own);
    }

    fn projections(&self) -> Vec<(String, &Projection)> {
        let mut all = self.layer.projections();
        all.extend(named("encoder_attn", self.encoder_attn.projections()));
        all
    }

    fn projections_mut(&mut self) -> Vec<(String, &mut Projection)> {
        let mut all = self.layer.projections_mut();
        all.extend(named("encoder_attn", self.encoder_attn.projections_mut()));
        all
    }
}

impl Memory {
    fn constant(&self) -> Self {
        let plain = |x: &Tensor<4>| x.clone().untracked();
        match self {
            Self::States { states, visible } => Self::States {
                states: states.clone().untracked(),
                visible: visible.clone(),
            },
            Self::Layer {
                keys_and_values,
                visible,
            } => Self::Layer {
                keys_and_values: keys_and_values.each_ref().map(plain),
                visible: visible.clone(),
            },
            Self::Kept { layers, visible } => Self::Kept {
                layers: Arc::new(layers.iter().map(|x| x.each_ref().map(plain)).collect()),
                visible: visible.clone(),
            },
        }
    }
}

/// The layer's own names, and those of cross-attention in Hugging Face's encoder-decoders.
impl Parameters for CrossedBlock {
    fn parameter(path: &[&str]) -> Option<Parameter> {
        match path {
            ["layer", path @ ..] => LlamaBlock::parameter(path),
            ["encoder_attn", field @ ..] => {
                // As in self-attention, below another name.
                let path: Vec<&str> = ["self_attn"]
                    .into_iter()
                    .chain(field.iter().copied())
                    .collect();
                let Parameter { name, role } = LlamaBlock::parameter(&path)?;
                let below = name.strip_prefix("self_attn.")?;
                Some(Parameter::new(format!("encoder_attn.{below}"), role))
            }
            ["encoder_attn_layer_norm", field] => {
                let name = format!("encoder_attn_layer_norm.{}", norm_parameter(field)?);
                Some(Parameter::new(name, Role::COEFFICIENT))
            }
            _ => None,
        }
    }
}

impl BlockConfig for CrossedConfig {
    const NAME: &'static str = "crossed_llama";

    fn read(json: &str) -> Result<Self, BlockError> {
        LlamaConfig::read(json).map(Self)
    }

    fn write(&self) -> serde_json::Map<String, serde_json::Value> {
        self.0.write()
    }

    fn validate(&self, d_model: usize) -> Result<(), BlockError> {
        self.0.validate(d_model)
    }

    fn norm_eps(&self) -> f64 {
        self.0.rms_norm_eps
    }

    /// With a memory of `seq` tokens too, whose keys and values, once a layer, are not in it:
    /// [`memory_cost`](Self::memory_cost).
    fn cost(&self, d_model: usize, seq: usize) -> BlockCost {
        let own = self.0.cost(d_model, seq);
        let q_width = self.0.head_width(d_model) * self.0.n_heads;
        // Queries and outputs; then scores and weighted values of all tokens of the memory.
        let projections = 2.0 * (2 * d_model * q_width) as f64;
        let attention = 4.0 * q_width as f64 * seq as f64;
        BlockCost {
            flops_per_token: own.flops_per_token + projections + attention,
            cache_bytes_per_token: own.cache_bytes_per_token,
            // The input and its norm, queries, mixed values.
            activations_per_token: own.activations_per_token + (2 * d_model + 2 * q_width) as u64,
        }
    }
}

impl CrossedConfig {
    /// What the keys and values of cross-attention cost for each token of the memory, once a layer.
    pub fn memory_cost(&self, d_model: usize) -> BlockCost {
        let kv_width = self.0.head_width(d_model) * self.0.n_kv_heads;
        BlockCost {
            flops_per_token: 2.0 * (2 * d_model * kv_width) as f64,
            cache_bytes_per_token: (2 * kv_width * size_of::<f32>()) as u64,
            activations_per_token: 2 * kv_width as u64,
        }
    }
}
