//! Causal attention with grouped queries.
//!
//! `softmax(q k^T / sqrt(head_dim) + mask) v` for each head, where `n_heads / n_kv_heads`
//! consecutive query heads share one key/value head (Ainslie et al., *GQA*, arXiv 2305.13245).
//! `n_kv_heads = n_heads` is multi-head attention.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use iiet_kernels::{causal_attention, linear};

use super::context::{merge_heads, split_heads};
use super::{KeyValueCache, LlamaConfig, LlamaContext};

/// Four bias-free projections around the heads.
#[derive(Module, Debug)]
pub struct Attention {
    /// `d_model` to `n_heads * head_dim`.
    pub q_proj: Linear,
    /// `d_model` to `n_kv_heads * head_dim`.
    pub k_proj: Linear,
    /// `d_model` to `n_kv_heads * head_dim`.
    pub v_proj: Linear,
    /// `n_heads * head_dim` to `d_model`.
    pub o_proj: Linear,
    n_heads: usize,
    n_kv_heads: usize,
}

impl Attention {
    /// Fresh projections.
    ///
    /// # Panics
    ///
    /// If `n_heads` does not divide `d_model` or `n_kv_heads` does not divide `n_heads`.
    pub fn init(config: &LlamaConfig, d_model: usize, device: &Device) -> Self {
        let LlamaConfig {
            n_heads,
            n_kv_heads,
            ..
        } = *config;
        assert!(
            d_model.is_multiple_of(n_heads) && n_heads.is_multiple_of(n_kv_heads),
            "n_kv_heads {n_kv_heads} must divide n_heads {n_heads}, which must divide d_model {d_model}"
        );
        let head_dim = d_model / n_heads;
        let linear = |from, to| LinearConfig::new(from, to).with_bias(false).init(device);
        Self {
            q_proj: linear(d_model, n_heads * head_dim),
            k_proj: linear(d_model, n_kv_heads * head_dim),
            v_proj: linear(d_model, n_kv_heads * head_dim),
            o_proj: linear(n_heads * head_dim, d_model),
            n_heads,
            n_kv_heads,
        }
    }

    /// Every token attends to itself and to those before it; with a cache, also to those that are
    /// there, and is cached.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq, d_model]`, as the context describes it
    /// - output: the same
    ///
    /// # Panics
    ///
    /// If there is a cache and the context is of whole texts, or the other way round.
    pub fn forward(
        &self,
        x: Tensor<3>,
        context: &LlamaContext,
        cache: Option<&mut KeyValueCache>,
    ) -> Tensor<3> {
        let q = context.rotate(linear(x.clone(), self.q_proj.weight.val()), self.n_heads);
        let [k, v] = self.keys_and_values(x, context);
        let head_dim = q.dims()[3];

        let scale = 1.0 / (head_dim as f64).sqrt();
        let mixed = match (cache, context) {
            (None, LlamaContext::Whole { .. }) => causal_attention(q, k, v, scale),
            (Some(cache), LlamaContext::New { rows, limit, .. }) => {
                cache.attend(q, k, v, rows, *limit, scale)
            }
            _ => panic!("a cache belongs to new tokens, and to no others"),
        };
        linear(merge_heads(mixed), self.o_proj.weight.val())
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
            panic!("a cache belongs to new tokens, and to no others");
        };
        let [k, v] = self.keys_and_values(x, context);
        cache.store(k, v, rows, *limit);
    }

    /// `[batch, n_kv_heads, seq, head_dim]` each.
    fn keys_and_values(&self, x: Tensor<3>, context: &LlamaContext) -> [Tensor<4>; 2] {
        let k = context.rotate(linear(x.clone(), self.k_proj.weight.val()), self.n_kv_heads);
        let v = split_heads(linear(x, self.v_proj.weight.val()), self.n_kv_heads);
        [k, v]
    }
}
