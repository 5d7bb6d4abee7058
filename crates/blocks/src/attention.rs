//! Causal attention with grouped queries.
//!
//! `softmax(q k^T / sqrt(head_dim) + mask) v` for each head, where `n_heads / n_kv_heads`
//! consecutive query heads share one key/value head (Ainslie et al., *GQA*, arXiv 2305.13245).
//! `n_kv_heads = n_heads` is multi-head attention.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use iiet_kernels::{causal_attention, linear};

use crate::{BlockConfig, Chunk, KeyValueCache, Positions};

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
    pub fn init(config: &BlockConfig, device: &Device) -> Self {
        let BlockConfig {
            d_model,
            n_heads,
            n_kv_heads,
            ..
        } = *config;
        let head_dim = config.head_dim();
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

    /// Every token attends to itself and to those before it.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq, d_model]`, `seq` being that of the positions
    /// - output: the same
    pub fn forward(&self, x: Tensor<3>, positions: &Positions) -> Tensor<3> {
        let q = split_heads(linear(x.clone(), self.q_proj.weight.val()), self.n_heads);
        let k = split_heads(linear(x.clone(), self.k_proj.weight.val()), self.n_kv_heads);
        let v = split_heads(linear(x, self.v_proj.weight.val()), self.n_kv_heads);
        let head_dim = q.dims()[3];

        let scale = 1.0 / (head_dim as f64).sqrt();
        let mixed = causal_attention(positions.rotate(q), positions.rotate(k), v, scale);
        linear(merge_heads(mixed), self.o_proj.weight.val())
    }

    /// New tokens attend to those in the cache, to themselves and to those before them, and are
    /// cached.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq, d_model]`, as the chunk describes it
    /// - output: the same
    pub fn forward_cached(
        &self,
        x: Tensor<3>,
        chunk: &Chunk,
        cache: &mut KeyValueCache,
    ) -> Tensor<3> {
        let q = chunk.rotate(linear(x.clone(), self.q_proj.weight.val()), self.n_heads);
        let k = chunk.rotate(linear(x.clone(), self.k_proj.weight.val()), self.n_kv_heads);
        let v = split_heads(linear(x, self.v_proj.weight.val()), self.n_kv_heads);
        let head_dim = q.dims()[3];

        let scale = 1.0 / (head_dim as f64).sqrt();
        let mixed = cache.attend(q, k, v, chunk, scale);
        linear(merge_heads(mixed), self.o_proj.weight.val())
    }
}

/// `[batch, seq, heads * head_dim]` to `[batch, heads, seq, head_dim]`.
fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, seq, width] = x.dims();
    x.reshape([batch, seq, heads, width / heads])
        .swap_dims(1, 2)
}

/// `[batch, heads, seq, head_dim]` to `[batch, seq, heads * head_dim]`.
fn merge_heads(x: Tensor<4>) -> Tensor<3> {
    let [batch, heads, seq, head_dim] = x.dims();
    x.swap_dims(1, 2).reshape([batch, seq, heads * head_dim])
}
