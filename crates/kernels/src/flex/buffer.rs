//! Flex tensors as slices of f32, and slices cut into blocks for the threads.

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Shape, TensorData};
use rayon::prelude::*;

use super::Primitive;

/// Blocks of about this many elements: 64 KiB, so that a block's operands share the second-level
/// cache, and enough work to be worth a thread's while.
const BLOCK: usize = 1 << 14;

pub(super) fn all_f32(tensors: &[&Primitive]) -> bool {
    tensors.iter().all(|t| t.dtype() == DType::F32)
}

/// The same values in row-major order.
pub(super) fn dense(x: Primitive) -> Primitive {
    if x.is_contiguous() {
        x
    } else {
        x.to_contiguous()
    }
}

/// The values of a [`dense`] tensor.
pub(super) fn values(x: &Primitive) -> &[f32] {
    x.as_slice().expect("invariant: dense and f32")
}

/// The same values in row-major order, in a buffer that is the tensor's own: its memory where
/// nobody else holds it, else a copy.
pub(super) fn owned(x: Primitive) -> Primitive {
    let x = dense(x);
    let whole = x.layout().start_offset() == 0
        && x.bytes().len() == x.layout().num_elements() * size_of::<f32>();
    if whole && x.is_unique() {
        x
    } else {
        tensor(values(&x).to_vec(), x.shape())
    }
}

/// The values of an [`owned`] tensor.
pub(super) fn values_mut(x: &mut Primitive) -> &mut [f32] {
    x.try_storage_mut()
        .expect("invariant: nobody else holds the buffer")
}

pub(super) fn tensor(values: Vec<f32>, shape: Shape) -> Primitive {
    Primitive::from_data(TensorData::new::<f32, _>(values, shape))
}

/// How many elements a block of whole rows of length `row` has.
pub(super) fn block_of_rows(row: usize) -> usize {
    row * (BLOCK / row.max(1)).max(1)
}

/// Calls `f` with the number of each block of `block` elements and the block, in parallel if there
/// is more than one.
pub(super) fn for_blocks(out: &mut [f32], block: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    if out.len() <= block {
        if !out.is_empty() {
            f(0, out);
        }
    } else {
        out.par_chunks_mut(block)
            .enumerate()
            .for_each(|(i, out)| f(i, out));
    }
}

/// The `i`th block of `block` elements.
pub(super) fn nth_block(x: &[f32], i: usize, block: usize) -> &[f32] {
    let from = i * block;
    &x[from..(from + block).min(x.len())]
}

/// Adds up rows of length `row`, first to last.
pub(super) fn sum_of_rows(rows: &[f32], row: usize) -> Vec<f32> {
    let mut sum = vec![0.0; row];
    for part in rows.chunks_exact(row) {
        for (s, p) in sum.iter_mut().zip(part) {
            *s += p;
        }
    }
    sum
}
