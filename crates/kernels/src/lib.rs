//! Fused tensor operations with hand-written backward passes.
//!
//! Each operation computes one formula that Burn would otherwise run, and differentiate, as a chain of
//! primitives with an intermediate tensor after each:
//!
//! | operation | formula | kept for the backward pass |
//! |---|---|---|
//! | [`attention`], [`causal_attention`] | `softmax(scale q k^T + mask) v`; causal, padded or crossed | inputs, output, one number per row |
//! | [`dropped_attention`] | the same with dropout of the weights; [`DropoutMask`] | the same, and no mask |
//! | [`linear_cross_entropy`] | `sum_t c_t (-log softmax(h_t W)[target_t])` | the gradients themselves |
//! | [`linear_distillation`] | the same mixed with `T^2 KL(teacher, student)` | the gradients themselves |
//! | [`rms_norm`], [`layer_norm`] | `x / rms(x) gamma`; `(x - mean) / sd gamma + beta` | inputs |
//! | [`embedding`] | `E[ids]`, gradients summed in f32 | the ids |
//! | [`linear`] | `x W`, gradients added in place | inputs |
//! | [`rotate`] | half-split rotary embedding | the tables |
//! | [`swiglu`] | `silu(gate) up` | inputs |
//! | [`weighted_sum`] | `sum_k w_k s_k` | inputs |
//! | [`add`] | `x + y`, in the memory of an operand if it may be | nothing |
//! | [`fan_out`] | copies of x, whose gradients are summed by [`add`] | nothing |
//! | [`kept_rows`] | rows of a cache of keys or values, moved in place | forward only |
//! | [`cached_attention`] | attention of new tokens to cached keys and values | forward only |
//! | [`log_softmax`] | `x - log sum exp x` | forward only |
//! | [`packed_linear`] | `x W^T` for W of 8 or 4 bits, [`PackedWeight`] | W is a constant |
//!
//! [`backward_from`] starts a backward pass at given gradients, and [`with_pullback`] lets a function
//! compute one. For the optimiser: [`adamw`], in place, and [`sum_of_squares`] for clipping.
//!
//! They take and return Burn tensors, with or without autodiff. Each has two bodies. Burn's flex backend runs
//! tensors of f32, bf16 and f16 through multithreaded kernels written for the compiler's vectoriser, whose
//! results do not depend on the number of threads. Other backends, and tensors of f64, run a body of Burn
//! primitives with the same backward formulas. In half precision both compute in f32 and round once; see
//! [`Precision`]. (The distillation loss has no half-precision kernel, nor has the cross-entropy one for f16:
//! they run composed.)
//!
//! # Features
//!
//! The backends are selected at compile time: an application that enables `flex`, `ndarray`, `wgpu`, `vulkan`
//! or `cuda` in Burn enables the feature of the same name here. On a backend that is compiled into Burn but
//! not enabled here, operations run composed, and Burn differentiates the composition.

#[cfg(feature = "flex")]
use std::sync::atomic::AtomicBool;

mod dropout;
#[cfg(feature = "flex")]
mod flex;
mod ops;
mod philox;
mod precision;
mod record;
mod route;

pub use dropout::DropoutMask;
#[cfg(feature = "flex")]
pub use flex::products::{Products, UnknownProducts};
pub use ops::adamw::{AdamWStep, WithMoments, adamw, sum_of_squares};
pub use ops::add::add;
pub use ops::attention::{Visibility, attention, causal_attention, dropped_attention};
pub use ops::backward_from::backward_from;
pub use ops::cached_attention::{CacheRow, cached_attention};
pub use ops::cross_entropy::{linear_cross_entropy, tokens_per_chunk};
pub use ops::distillation::{DistillationLoss, DistillationMix, linear_distillation};
pub use ops::embedding::embedding;
pub use ops::fan_out::fan_out;
pub use ops::kept_rows::kept_rows;
pub use ops::layer_norm::layer_norm;
pub use ops::linear::linear;
pub use ops::log_softmax::log_softmax;
pub use ops::packed_linear::{PackedWeight, packed_linear};
pub use ops::pullback::with_pullback;
pub use ops::rms_norm::rms_norm;
pub use ops::rope::rotate;
pub use ops::swiglu::swiglu;
pub use ops::weighted_sum::weighted_sum;
pub use precision::{Precision, UnknownPrecision, in_f32};

/// Runs a function on one of the threads that the kernels use.
///
/// Use it for a chain of operations, such as a decoded token or a training step: called from another thread,
/// each operation that runs in parallel wakes a worker thread and then waits for it. Meanwhile the other workers wait
/// actively for work, for up to a fifth of a millisecond. Without kernels this only calls the function. GPU work of the
/// function is submitted to the caller's queue, as if the caller had run it.
pub fn on_workers<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    #[cfg(feature = "flex")]
    {
        let queue = burn::tensor::StreamId::current();
        let ended = AtomicBool::new(false);
        rayon::scope(|scope| flex::awake::awake(scope, &ended, || queue.executes(f)))
    }
    #[cfg(not(feature = "flex"))]
    f()
}

/// The examples in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
