//! The LLaMA layer as a map and as a vector field.
//!
//! ```text
//! u    = y + Attention(RMSNorm(y))
//! G(y) = u + SwiGLU(RMSNorm(u))
//! F(y) = G(y) - y = Attention(RMSNorm(y)) + SwiGLU(RMSNorm(u))
//! ```

use burn::module::Module;
use burn::nn::{RmsNorm, RmsNormConfig};
use burn::tensor::{Device, Tensor};
use iiet_kernels::rms_norm;
use iiet_ode::VectorField;

use crate::{Attention, Chunk, KeyValueCache, Positions, SwiGlu};

/// The sizes of a block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockConfig {
    /// Width of the hidden states.
    pub d_model: usize,
    /// Width inside the feed-forward layer.
    pub d_ff: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// What RMSNorm adds to the mean square.
    pub norm_eps: f64,
}

impl BlockConfig {
    /// The width of one head.
    pub fn head_dim(&self) -> usize {
        self.d_model / self.n_heads
    }

    /// A block with fresh parameters.
    ///
    /// # Panics
    ///
    /// If `n_heads` does not divide `d_model` or `n_kv_heads` does not divide `n_heads`.
    pub fn init(&self, device: &Device) -> Block {
        let Self {
            d_model,
            n_heads,
            n_kv_heads,
            ..
        } = *self;
        assert!(
            d_model.is_multiple_of(n_heads) && n_heads.is_multiple_of(n_kv_heads),
            "n_kv_heads {n_kv_heads} must divide n_heads {n_heads}, which must divide d_model {d_model}"
        );
        let norm = || {
            RmsNormConfig::new(d_model)
                .with_epsilon(self.norm_eps)
                .init(device)
        };
        Block {
            input_layernorm: norm(),
            self_attn: Attention::init(self, device),
            post_attention_layernorm: norm(),
            mlp: SwiGlu::init(d_model, self.d_ff, device),
        }
    }
}

/// Attention and feed-forward layer, each with its norm before it.
#[derive(Module, Debug)]
pub struct Block {
    /// The norm before attention.
    pub input_layernorm: RmsNorm,
    /// Causal attention.
    pub self_attn: Attention,
    /// The norm before the feed-forward layer.
    pub post_attention_layernorm: RmsNorm,
    /// The feed-forward layer.
    pub mlp: SwiGlu,
}

impl Block {
    /// `G(y)`.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq, d_model]`
    /// - output: the same
    pub fn forward(&self, y: Tensor<3>, positions: &Positions) -> Tensor<3> {
        let u = y.clone() + self.attend(y, positions);
        u.clone() + self.feed_forward(u)
    }

    /// `F(y) = G(y) - y`, without the detour over `G`.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq, d_model]`
    /// - output: the same
    pub fn slope(&self, y: Tensor<3>, positions: &Positions) -> Tensor<3> {
        let attended = self.attend(y.clone(), positions);
        let fed = self.feed_forward(y + attended.clone());
        attended + fed
    }

    /// `(Attention(RMSNorm(y)), SwiGLU(RMSNorm(u)))` of new tokens, whose keys and values the cache
    /// takes up.
    fn parts_cached(
        &self,
        y: Tensor<3>,
        chunk: &Chunk,
        cache: &mut KeyValueCache,
    ) -> (Tensor<3>, Tensor<3>) {
        let x = normalise(&self.input_layernorm, y.clone());
        let attended = self.self_attn.forward_cached(x, chunk, cache);
        let fed = self.feed_forward(y + attended.clone());
        (attended, fed)
    }

    fn attend(&self, y: Tensor<3>, positions: &Positions) -> Tensor<3> {
        self.self_attn
            .forward(normalise(&self.input_layernorm, y), positions)
    }

    fn feed_forward(&self, u: Tensor<3>) -> Tensor<3> {
        self.mlp
            .forward(normalise(&self.post_attention_layernorm, u))
    }
}

/// What `norm` computes, in one fused operation.
///
/// # Shapes
///
/// - input: `[batch, seq, d_model]`
/// - output: the same
pub fn normalise(norm: &RmsNorm, x: Tensor<3>) -> Tensor<3> {
    rms_norm(x, norm.gamma.val(), norm.epsilon)
}

/// A block at work on given positions: the right-hand side of `dy/dt = F(y)` in one layer.
#[derive(Debug)]
pub struct BlockField<'a> {
    /// The layer's parameters.
    pub block: &'a Block,
    /// Where its input stands.
    pub positions: &'a Positions,
}

impl VectorField<Tensor<3>> for BlockField<'_> {
    fn slope(&mut self, y: Tensor<3>) -> Tensor<3> {
        self.block.slope(y, self.positions)
    }

    fn euler(&mut self, y: Tensor<3>, h: f64) -> Tensor<3> {
        if h == 1.0 {
            self.block.forward(y, self.positions)
        } else {
            y.clone() + self.slope(y) * h
        }
    }
}

/// A block that sees new tokens of texts whose earlier tokens it saw before: the right-hand side of
/// `dy/dt = F(y)` in one layer, with a cache for each evaluation.
///
/// It counts its evaluations, so the first uses the first cache, the second the second, whatever
/// the solver does between them.
#[derive(Debug)]
pub struct CachedBlockField<'a> {
    block: &'a Block,
    chunk: &'a Chunk,
    caches: std::slice::IterMut<'a, KeyValueCache>,
}

impl<'a> CachedBlockField<'a> {
    /// The field of one step; `caches` are those of the layer, as many as the solver evaluates it.
    pub fn new(block: &'a Block, chunk: &'a Chunk, caches: &'a mut [KeyValueCache]) -> Self {
        let caches = caches.iter_mut();
        Self {
            block,
            chunk,
            caches,
        }
    }

    fn parts(&mut self, y: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        let cache = self.caches.next();
        let cache = cache.expect("invariant: a layer has a cache for every evaluation");
        self.block.parts_cached(y, self.chunk, cache)
    }
}

impl VectorField<Tensor<3>> for CachedBlockField<'_> {
    fn slope(&mut self, y: Tensor<3>) -> Tensor<3> {
        let (attended, fed) = self.parts(y);
        attended + fed
    }

    fn euler(&mut self, y: Tensor<3>, h: f64) -> Tensor<3> {
        let (attended, fed) = self.parts(y.clone());
        if h == 1.0 {
            (y + attended) + fed
        } else {
            y + (attended + fed) * h
        }
    }
}
