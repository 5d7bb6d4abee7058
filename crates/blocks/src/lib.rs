//! Transformer blocks as vector fields.
//!
//! ```text
//! G(y) = u + SwiGLU(RMSNorm(u)),   u = y + Attention(RMSNorm(y))      the LLaMA block
//! F(y) = G(y) - y                                                     its vector field
//! ```
//!
//! [`Block`] is the interface: a map, a vector field, and what a model needs to know about its parameters and
//! costs. [`BlockField`] makes any block an [`iiet_ode::VectorField`], so that any solver can integrate it.
//! [`llama`] has the blocks of this crate: pre-norm, with grouped-query attention, a rotary position embedding in the half-split layout, and a SwiGLU feed-forward layer.
//! [`LlamaBlock`] is causal, or sees the whole of a source, as its context says; [`CrossedBlock`] is the
//! decoder's layer of an encoder-decoder, with attention to the encoder's output between the two.
//!
//! ```
//! use burn::tensor::{Device, Distribution, Tensor};
//! use iiet_blocks::{Block, BlockField, LlamaBlock, LlamaConfig, Tokens};
//! use iiet_ode::{ExplicitEuler, Solver};
//!
//! let device = Device::default();
//! let config = LlamaConfig { d_ff: 176, n_heads: 4, n_kv_heads: 2, ..LlamaConfig::default() };
//! let block = LlamaBlock::init(&config, 64, &device);
//!
//! // One layer of a plain transformer: one explicit Euler step of size 1.
//! let context = LlamaBlock::context(&config, 64, Tokens::Whole { seq: 10 }, &device);
//! let mut terms = Vec::new();
//! let mut field = BlockField::new(&block, &context, None, &mut terms);
//! let y = Tensor::<3>::random([1, 10, 64], Distribution::Default, &device);
//! let solver = ExplicitEuler {};
//! let next = solver.step(&mut field, solver.start(y), 1.0);
//! assert_eq!(next.y.dims(), [1, 10, 64]);
//! ```

mod block;
mod block_field;
mod boxed;
mod dropout;
mod error;
pub mod llama;
mod projection;

pub use block::{Block, BlockCache, BlockConfig, BlockCost, Evaluation, Tokens};
pub use block_field::BlockField;
pub use boxed::Boxed;
pub use dropout::{ContextDropout, Dropout, DropoutRates, LayerMasks, Place};
pub use error::BlockError;
pub use iiet_kernels::{CacheRow, DropoutMask, Precision, Visibility};
pub use llama::{
    AttentionBias, CrossedBlock, CrossedConfig, CrossedContext, Frequencies, KeyValueCache,
    Llama3Scaling, LlamaBlock, LlamaConfig, LlamaContext, Memory, Positions, normalise,
};
pub use projection::{InputObserver, ObservedProjection, PackedProjection, Projection};

/// The examples in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
