//! The LLaMA layer as a map and as a vector field.
//!
//! ```text
//! u    = y + Attention(RMSNorm(y))
//! G(y) = u + SwiGLU(RMSNorm(u))
//! F(y) = G(y) - y = Attention(RMSNorm(y)) + SwiGLU(RMSNorm(u))
//! ```
//!
//! With a `residual_multiplier` c other than 1 it is `u = y + c Attention(..)` and
//! `G(y) = u + c SwiGLU(..)`. Where a solver evaluates the block 1 + r times, `c = 1 / sqrt(1 + r)` keeps
//! the scale of the residual stream (arXiv 2606.18524). It is a constant of the model, and does not
//! follow the schedule, so that another schedule leaves the block as it was trained.
//!
//! In training both branches, the weights of attention and the hidden activations may be dropped
//! ([`Dropout`]).
//!
//! Touvron et al., *LLaMA* (arXiv 2302.13971), section 2.2. Names and layouts are those of the
//! checkpoints on the hub. Mistral, Qwen2 and Qwen3 are the same layer with options of attention
//! ([`LlamaConfig`]).

mod attention;
mod config;
mod context;
mod crossed;
mod key_value_cache;
mod others;
mod rope;
mod swiglu;

use burn::module::Module;
use burn::nn::{RmsNorm, RmsNormConfig};
use burn::tensor::{Device, Tensor};
use iiet_kernels::{add, fan_out, rms_norm};
use iiet_ode::{Layer, Parameter, Parameters, Role, norm_parameter};

pub use self::attention::Attention;
pub use self::config::{AttentionBias, LlamaConfig};
pub use self::context::LlamaContext;
pub use self::crossed::{CrossedBlock, CrossedConfig, CrossedContext, Memory};
pub use self::key_value_cache::KeyValueCache;
pub use self::rope::{Frequencies, Llama3Scaling, Positions};
pub use self::swiglu::SwiGlu;
use crate::{Block, BlockError, ContextDropout, Dropout, Evaluation, Place, Projection, Tokens};

/// Attention and feed-forward layer, each with a norm before it.
#[derive(Module, Debug)]
pub struct LlamaBlock {
    /// The norm before attention.
    pub input_layernorm: RmsNorm,
    /// Attention of the tokens to each other.
    pub self_attn: Attention,
    /// The norm before the feed-forward layer.
    pub post_attention_layernorm: RmsNorm,
    /// The feed-forward layer.
    pub mlp: SwiGlu,
    /// `c`, what both branches are multiplied by.
    #[module(skip)]
    pub residual_multiplier: f64,
}

impl LlamaBlock {
    /// `c Attention(RMSNorm(y))`
    fn attend(
        &self,
        y: Tensor<3>,
        context: &LlamaContext,
        cache: Option<&mut KeyValueCache>,
    ) -> Tensor<3> {
        let x = normalise(&self.input_layernorm, y);
        let attended = self.self_attn.forward(x, context, cache);
        self.branch(attended, context.dropout(), Place::Attention)
    }

    /// `c SwiGLU(RMSNorm(u))`
    fn feed_forward(&self, u: Tensor<3>, dropout: &ContextDropout) -> Tensor<3> {
        let x = normalise(&self.post_attention_layernorm, u);
        let hidden = dropout.apply(Place::Activation, self.mlp.hidden(x));
        self.branch(self.mlp.down(hidden), dropout, Place::FeedForward)
    }

    /// `c m x`, what is added to the residual stream.
    fn branch(&self, x: Tensor<3>, dropout: &ContextDropout, place: Place) -> Tensor<3> {
        let x = dropout.apply(place, x);
        match self.residual_multiplier {
            1.0 => x,
            c => x.mul_scalar(c),
        }
    }
}

impl Block for LlamaBlock {
    type Config = LlamaConfig;
    type Context = LlamaContext;
    type Cache = KeyValueCache;

    /// # Panics
    ///
    /// If `n_heads` does not divide `d_model` or `n_kv_heads` does not divide `n_heads`, which
    /// [`LlamaConfig::validate`](crate::BlockConfig::validate) rejects.
    fn init(config: &LlamaConfig, d_model: usize, device: &Device) -> Self {
        let norm = || {
            RmsNormConfig::new(d_model)
                .with_epsilon(config.rms_norm_eps)
                .init(device)
        };
        Self {
            input_layernorm: norm(),
            self_attn: Attention::init(config, d_model, device),
            post_attention_layernorm: norm(),
            mlp: SwiGlu::init(d_model, config.d_ff, device),
            residual_multiplier: config.residual_multiplier,
        }
    }

    fn context(
        config: &LlamaConfig,
        d_model: usize,
        tokens: Tokens,
        device: &Device,
    ) -> LlamaContext {
        LlamaContext::new(&config.frequencies(d_model), tokens, device)
    }

    fn with_dropout(context: LlamaContext, dropout: &Dropout) -> Result<LlamaContext, BlockError> {
        context.with_dropout(dropout)
    }

    fn at_layer(&self, context: &LlamaContext, layer: Layer) -> Option<LlamaContext> {
        context.at_layer(layer)
    }

    fn forward(&self, y: Tensor<3>, at: Evaluation<'_, Self>) -> Tensor<3> {
        let u = residual(y, |y| self.attend(y, at.context, at.cache));
        residual(u, |u| self.feed_forward(u, at.context.dropout()))
    }

    fn slope(&self, y: Tensor<3>, at: Evaluation<'_, Self>) -> Tensor<3> {
        let [y, input] = fan_out(y);
        let attended = self.attend(input, at.context, at.cache);
        residual(attended, |attended| {
            self.feed_forward(add(y, attended), at.context.dropout())
        })
    }

    fn remember(&self, y: Tensor<3>, at: Evaluation<'_, Self>) {
        if let Some(cache) = at.cache {
            let x = normalise(&self.input_layernorm, y);
            self.self_attn.remember(x, at.context, cache);
        }
    }

    fn projections(&self) -> Vec<(String, &Projection)> {
        let attention = self.self_attn.projections();
        let all = named("self_attn", attention).chain(named("mlp", self.mlp.projections()));
        all.collect()
    }

    fn projections_mut(&mut self) -> Vec<(String, &mut Projection)> {
        let attention = self.self_attn.projections_mut();
        let all = named("self_attn", attention).chain(named("mlp", self.mlp.projections_mut()));
        all.collect()
    }
}

/// Projections below the name of their module.
fn named<P, const N: usize>(
    part: &'static str,
    projections: [(&'static str, P); N],
) -> impl Iterator<Item = (String, P)> {
    let projections = projections.into_iter();
    projections.map(move |(name, projection)| (format!("{part}.{name}"), projection))
}

/// The parameter names of LLaMA checkpoints.
impl Parameters for LlamaBlock {
    fn parameter(path: &[&str]) -> Option<Parameter> {
        match path {
            [
                part @ "self_attn",
                projection @ ("q_proj" | "k_proj" | "v_proj" | "o_proj"),
                path @ ..,
            ]
            | [
                part @ "mlp",
                projection @ ("gate_proj" | "up_proj" | "down_proj"),
                path @ ..,
            ] => {
                let Parameter { name, role } = Projection::parameter(path)?;
                Some(Parameter::new(format!("{part}.{projection}.{name}"), role))
            }
            ["self_attn", norm @ ("q_norm" | "k_norm"), field] => {
                let name = format!("self_attn.{norm}.{}", norm_parameter(field)?);
                Some(Parameter::new(name, Role::COEFFICIENT))
            }
            [
                norm @ ("input_layernorm" | "post_attention_layernorm"),
                field,
            ] => {
                let name = format!("{norm}.{}", norm_parameter(field)?);
                Some(Parameter::new(name, Role::COEFFICIENT))
            }
            _ => None,
        }
    }
}

/// `y + f(y)`.
fn residual(y: Tensor<3>, f: impl FnOnce(Tensor<3>) -> Tensor<3>) -> Tensor<3> {
    let [y, input] = fan_out(y);
    add(y, f(input))
}

/// Computes `norm` as one fused operation.
///
/// # Shapes
///
/// - input: `[batch, seq, width]`
/// - output: the same
pub fn normalise(norm: &RmsNorm, x: Tensor<3>) -> Tensor<3> {
    rms_norm(x, norm.gamma.val(), norm.epsilon)
}
