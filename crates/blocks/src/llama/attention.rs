//! Attention with grouped queries: of the tokens of a text to each other, and of a text to another.
//!
//! `softmax(q k^T / sqrt(head_dim) + mask) v` for each head, where `n_heads / n_kv_heads`
//! consecutive query heads share one key/value head (Ainslie et al., *GQA*, arXiv 2305.13245).
//! `n_kv_heads = n_heads` is multi-head attention. Who sees whom is the context's: earlier tokens alone, or
//! all. In cross-attention, queries come from one text and keys and values from another, without rotary
//! positions. The projections may have biases (Qwen2, arXiv
//! 2407.10671), and the heads of queries and keys a norm before they are rotated (Qwen3, arXiv 2505.09388,
//! section 2), with one gain for all heads of a layer. In training the context's dropout may drop weights after the
//! softmax ([`Place::AttentionWeights`]).

use burn::module::Module;
use burn::nn::{Initializer, LinearConfig, RmsNorm, RmsNormConfig};
use burn::tensor::{Device, Tensor};
use iiet_kernels::{DropoutMask, Visibility, attention, dropped_attention, fan_out};

use super::context::{merge_heads, split_heads};
use super::{AttentionBias, KeyValueCache, LlamaConfig, LlamaContext, normalise};
use crate::{Place, Projection};

/// Four projections around the heads.
#[derive(Module, Debug)]
pub struct Attention {
    /// `d_model` to `n_heads * head_dim`.
    pub q_proj: Projection,
    /// `d_model` to `n_kv_heads * head_dim`.
    pub k_proj: Projection,
    /// `d_model` to `n_kv_heads * head_dim`.
    pub v_proj: Projection,
    /// `n_heads * head_dim` to `d_model`.
    pub o_proj: Projection,
    /// Of `head_dim`, on the queries of each head, if there is one.
    pub q_norm: Option<RmsNorm>,
    /// Of `head_dim`, on the keys of each head, if there is one.
    pub k_norm: Option<RmsNorm>,
    n_heads: usize,
    n_kv_heads: usize,
}

impl Attention {
    /// Newly initialised projections.
    ///
    /// # Panics
    ///
    /// If `n_heads` does not divide `d_model` and the width of a head is not given, or `n_kv_heads` does
    /// not divide `n_heads`.
    pub fn init(config: &LlamaConfig, d_model: usize, device: &Device) -> Self {
        let LlamaConfig {
            n_heads,
            n_kv_heads,
            attention_bias,
            ..
        } = *config;
        assert!(
            (config.head_dim.is_some() || d_model.is_multiple_of(n_heads))
                && n_heads.is_multiple_of(n_kv_heads),
            "n_kv_heads {n_kv_heads} must divide n_heads {n_heads}, which must divide d_model {d_model}"
        );
        let head_dim = config.head_width(d_model);
        let linear = |from, to, biased| {
            let config = LinearConfig::new(from, to);
            Projection::Dense(match biased {
                false => config.with_bias(false).init(device),
                // Biases begin at zero; weights are filled afterwards.
                true => config.with_initializer(Initializer::Zeros).init(device),
            })
        };
        let norm = || {
            RmsNormConfig::new(head_dim)
                .with_epsilon(config.rms_norm_eps)
                .init(device)
        };
        let (qkv, o) = (
            attention_bias != AttentionBias::None,
            attention_bias == AttentionBias::All,
        );
        Self {
            q_proj: linear(d_model, n_heads * head_dim, qkv),
            k_proj: linear(d_model, n_kv_heads * head_dim, qkv),
            v_proj: linear(d_model, n_kv_heads * head_dim, qkv),
            o_proj: linear(n_heads * head_dim, d_model, o),
            q_norm: config.qk_norm.then(norm),
            k_norm: config.qk_norm.then(norm),
            n_heads,
            n_kv_heads,
        }
    }

    /// Every token attends to the tokens that the context shows it: itself and earlier ones, with a cache also
    /// those cached, or all of a source. With a cache it is added to the cache.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq, d_model]`, as the context describes it
    /// - output: the same
    ///
    /// # Panics
    ///
    /// If there is a cache and the context is of whole texts, or vice versa.
    pub fn forward(
        &self,
        x: Tensor<3>,
        context: &LlamaContext,
        cache: Option<&mut KeyValueCache>,
    ) -> Tensor<3> {
        let [to_q, to_kv] = fan_out(x);
        let q = of_heads(&self.q_norm, self.q_proj.forward(to_q), self.n_heads);
        let q = context.rotate(q, self.n_heads);
        let [k, v] = self.keys_and_values(to_kv, context);
        let head_dim = q.dims()[3];

        let scale = 1.0 / (head_dim as f64).sqrt();
        let mixed = match (cache, context) {
            (
                None,
                LlamaContext::Whole {
                    visible, dropout, ..
                },
            ) => {
                let mask = dropout.mask(Place::AttentionWeights);
                mixed(q, [k, v], visible, scale, mask)
            }
            (Some(cache), LlamaContext::New { rows, limit, .. }) => {
                cache.attend(q, k, v, rows, *limit, scale)
            }
            _ => panic!("a cache requires a context of new tokens, and vice versa"),
        };
        self.o_proj.forward(merge_heads(mixed))
    }

    /// Every token attends to another text, whose keys and values are [`of_memory`](Self::of_memory). A mask
    /// drops weights.
    ///
    /// Consecutive rows may share a text, the same number of rows each: row b attends to the text
    /// `b / (batch / texts)`. Its keys and values are not copied.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq, d_model]`
    /// - keys and values: `[texts, n_kv_heads, memory, head_dim]` each; batch is a multiple of texts
    /// - output: `[batch, seq, d_model]`
    ///
    /// # Panics
    ///
    /// If the visibility is causal, or not of these texts; or if batch is not a multiple of texts.
    pub fn crossed(
        &self,
        x: Tensor<3>,
        keys_and_values: [Tensor<4>; 2],
        visible: &Visibility,
        mask: Option<DropoutMask>,
    ) -> Tensor<3> {
        let [batch, seq, d_model] = x.dims();
        let [texts, ..] = keys_and_values[0].dims();
        // Queries see all keys of their text and have no positions, so rows that share one are one row.
        let x = match batch == texts {
            true => x,
            false => x.reshape([texts, batch / texts * seq, d_model]),
        };
        let q = of_heads(&self.q_norm, self.q_proj.forward(x), self.n_heads);
        let q = split_heads(q, self.n_heads);
        let scale = 1.0 / (q.dims()[3] as f64).sqrt();
        let mixed = mixed(q, keys_and_values, visible, scale, mask);
        let mixed = self.o_proj.forward(merge_heads(mixed));
        match batch == texts {
            true => mixed,
            false => mixed.reshape([batch, seq, d_model]),
        }
    }

    /// The keys and values of another text, for [`crossed`](Self::crossed).
    ///
    /// # Shapes
    ///
    /// - input: `[batch, memory, d_model]`
    /// - output: `[batch, n_kv_heads, memory, head_dim]` each
    pub fn of_memory(&self, memory: Tensor<3>) -> [Tensor<4>; 2] {
        let heads = self.n_kv_heads;
        let [to_k, to_v] = fan_out(memory);
        let k = of_heads(&self.k_norm, self.k_proj.forward(to_k), heads);
        let v = self.v_proj.forward(to_v);
        [k, v].map(|x| split_heads(x, heads))
    }

    /// Caches what [`forward`](Self::forward) would, and attends to nothing.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq, d_model]`, as the context describes it
    ///
    /// # Panics
    ///
    /// If the context is of whole texts.
    pub fn remember(&self, x: Tensor<3>, context: &LlamaContext, cache: &mut KeyValueCache) {
        let LlamaContext::New { rows, limit, .. } = context else {
            panic!("a cache requires a context of new tokens, and vice versa");
        };
        let [k, v] = self.keys_and_values(x, context);
        cache.store(k, v, rows, *limit);
    }

    /// The projections with their names.
    pub(super) fn projections(&self) -> [(&'static str, &Projection); 4] {
        [
            ("q_proj", &self.q_proj),
            ("k_proj", &self.k_proj),
            ("v_proj", &self.v_proj),
            ("o_proj", &self.o_proj),
        ]
    }

    /// The same, to be changed.
    pub(super) fn projections_mut(&mut self) -> [(&'static str, &mut Projection); 4] {
        [
            ("q_proj", &mut self.q_proj),
            ("k_proj", &mut self.k_proj),
            ("v_proj", &mut self.v_proj),
            ("o_proj", &mut self.o_proj),
        ]
    }

    /// `[batch, n_kv_heads, seq, head_dim]` each.
    fn keys_and_values(&self, x: Tensor<3>, context: &LlamaContext) -> [Tensor<4>; 2] {
        let heads = self.n_kv_heads;
        let [to_k, to_v] = fan_out(x);
        let k = of_heads(&self.k_norm, self.k_proj.forward(to_k), heads);
        let v = split_heads(self.v_proj.forward(to_v), heads);
        [context.rotate(k, heads), v]
    }
}

/// Attention with dropout of its weights, if there is a mask.
fn mixed(
    q: Tensor<4>,
    [k, v]: [Tensor<4>; 2],
    visible: &Visibility,
    scale: f64,
    mask: Option<DropoutMask>,
) -> Tensor<4> {
    match mask {
        None => attention(q, k, v, visible, scale),
        Some(mask) => dropped_attention(q, k, v, visible, scale, &mask),
    }
}

/// The norm of each head, if there is one.
///
/// # Shapes
///
/// - input: `[batch, seq, heads * head_dim]`
/// - output: the same
fn of_heads(norm: &Option<RmsNorm>, x: Tensor<3>, heads: usize) -> Tensor<3> {
    let Some(norm) = norm else { return x };
    let [batch, seq, width] = x.dims();
    let x = x.reshape([batch, seq * heads, width / heads]);
    normalise(norm, x).reshape([batch, seq, width])
}
