//! Building blocks of the kernels for Flex: tensors as slices and blocks for the threads, matrix products,
//! vectorised loops. The kernels themselves are beside their formulas, in `ops/<operation>/flex.rs`.
//!
//! They compute in f32, multithreaded and vectorised. Half-precision inputs are read as f32 and results are
//! rounded; products of bf16 use the processor's bf16 instructions where it has them. Other float types run
//! the composed bodies.
//!
//! All work is split into blocks whose size depends on the shapes alone, and sums over blocks are taken in
//! the blocks' order, so results do not depend on the number of threads.

pub(crate) mod awake;
pub(crate) mod blocks;
pub(crate) mod buffer;
pub(crate) mod dropout;
pub(crate) mod exp;
pub(crate) mod few_rows;
pub(crate) mod gemm;
pub(crate) mod halves;
pub(crate) mod products;
pub(crate) mod simd;

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;

pub(crate) type Primitive = FloatTensor<Flex>;
