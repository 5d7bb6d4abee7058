//! Fused tensor operations with hand-written backward passes.
//!
//! Every operation here is one formula that Burn would otherwise run, and differentiate, as a chain
//! of primitives with an intermediate tensor after each:
//!
//! | operation | formula | kept for the backward pass |
//! |---|---|---|
//! | [`causal_attention`] | `softmax(scale q k^T + mask) v` | inputs, output, one number a row |
//! | [`linear_cross_entropy`] | `sum_t c_t (-log softmax(h_t W)[target_t])` | the gradients themselves |
//! | [`linear_distillation`] | the same mixed with `T^2 KL(teacher, student)` | the gradients themselves |
//! | [`rms_norm`], [`layer_norm`] | `x / rms(x) gamma`; `(x - mean) / sd gamma + beta` | inputs |
//! | [`embedding`] | `E[ids]`, gradients summed in f32 | the ids |
//! | [`linear`] | `x W`, gradients added in place | inputs |
//! | [`rotate`] | half-split rotary embedding | the tables |
//! | [`swiglu`] | `silu(gate) up` | inputs |
//! | [`weighted_sum`] | `sum_k w_k s_k` | inputs |
//! | [`cached_attention`] | attention of new tokens to cached keys and values | forward only |
//!
//! [`backward_from`] starts a backward pass at given gradients. For the optimiser: [`adamw`], in place, and [`sum_of_squares`] for clipping.
//!
//! They take and return Burn tensors, on autodiff devices and on plain ones. There are two bodies
//! of each. Burn's flex backend runs f32 tensors through multithreaded kernels written for the
//! compiler's vectoriser, whose results do not depend on the number of threads. Every other
//! backend and dtype runs a body of Burn primitives, with the same backward formulas; of half
//! precisions it makes the use that [`Precision`] tells.
//!
//! # Features
//!
//! Which backends are routed is settled at compile time: an application that turns on `flex`,
//! `ndarray`, `wgpu`, `vulkan` or `cuda` in Burn turns on the feature of the same name here. For a
//! backend that is compiled into Burn but not named here the operations are still right: they run
//! composed, and Burn differentiates the composition.

mod adamw;
mod attention;
mod backward_from;
mod cached_attention;
mod cross_entropy;
mod distillation;
mod embedding;
#[cfg(feature = "flex")]
mod flex;
mod layer_norm;
mod linear;
mod ops;
mod precision;
mod rms_norm;
mod rope;
mod rows;
mod swiglu;
mod weighted_sum;

pub use adamw::{AdamWStep, WithMoments, adamw, sum_of_squares};
pub use attention::causal_attention;
pub use backward_from::backward_from;
pub use cached_attention::{CacheRow, cached_attention};
pub use cross_entropy::linear_cross_entropy;
pub use distillation::{DistillationLoss, DistillationMix, linear_distillation};
pub use embedding::embedding;
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use precision::{Precision, UnknownPrecision, in_f32};
pub use rms_norm::rms_norm;
pub use rope::rotate;
pub use swiglu::swiglu;
pub use weighted_sum::weighted_sum;

/// Runs a function on one of the threads that the kernels use.
///
/// Worth its while for a chain of operations, such as a decoded token or a training step: called from
/// elsewhere every operation that is shared between threads wakes one of them and waits to be woken
/// itself. Without kernels it just calls the function. What the function does on a GPU goes to the
/// caller's queue there, as if the caller had run it.
pub fn on_workers<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    #[cfg(feature = "flex")]
    {
        let queue = burn::tensor::StreamId::current();
        rayon::scope(|_| queue.executes(f))
    }
    #[cfg(not(feature = "flex"))]
    f()
}
