//! Tests of every operation against its composition of Burn operations and against finite
//! differences.
//!
//! In f32 the flex kernels run, in f64 the bodies of Burn primitives that serve the other backends,
//! so both are tested against the same formulas.

mod adamw;
mod attention;
mod backward_from;
mod check;
mod cross_entropy;
mod determinism;
mod distillation;
mod dropout;
mod elementwise;
mod halves;
mod kept_rows;
mod linear;
mod log_softmax;
mod non_finite;
mod norms;
mod packed_linear;
mod rotation;
mod sums;
