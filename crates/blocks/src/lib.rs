//! Transformer blocks, seen as vector fields.
//!
//! ```text
//! G(y) = u + SwiGLU(RMSNorm(u)),   u = y + Attention(RMSNorm(y))      the block
//! F(y) = G(y) - y                                                     its vector field
//! ```
//!
//! [`Block`] is the LLaMA layer: pre-norm, bias-free, dropout-free, with causal grouped-query
//! [`Attention`] under a rotary position embedding in the half-split layout ([`Positions`]), and a
//! [`SwiGlu`] feed-forward layer. [`BlockField`] is the same thing as an
//! [`iiet_ode::VectorField`]: it goes wherever a solver wants an equation. [`CachedBlockField`] is
//! the same field for new tokens of texts it has seen before, with a [`KeyValueCache`] for each
//! evaluation.
//!
//! ```
//! use burn::tensor::{Device, Distribution, Tensor};
//! use iiet_blocks::{BlockConfig, Positions};
//!
//! let device = Device::default();
//! let config = BlockConfig { d_model: 64, d_ff: 176, n_heads: 4, n_kv_heads: 2, norm_eps: 1e-6 };
//! let block = config.init(&device);
//! let positions = Positions::new(config.head_dim(), 1e4, 10, &device);
//! let y = Tensor::<3>::random([1, 10, 64], Distribution::Default, &device);
//! assert_eq!(block.forward(y, &positions).dims(), [1, 10, 64]);
//! ```

mod attention;
mod block;
mod cache;
mod rope;
mod swiglu;

pub use attention::Attention;
pub use block::{Block, BlockConfig, BlockField, CachedBlockField, normalise};
pub use cache::{Chunk, KeyValueCache};
pub use iiet_kernels::{CacheRow, Precision};
pub use rope::{Frequencies, Llama3Scaling, Positions};
pub use swiglu::SwiGlu;
