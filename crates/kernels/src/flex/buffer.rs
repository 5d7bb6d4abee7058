//! Flex tensors as slices of f32, and slices split into blocks for the threads.

use std::mem::MaybeUninit;

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Element, Shape, TensorData};
use rayon::prelude::*;

use super::Primitive;

/// Approximate number of elements per block: 64 KiB, so that a block's operands share the L2 cache
/// and a block is enough work to justify a thread.
const BLOCK: usize = 1 << 14;

pub(crate) fn all_f32(tensors: &[&Primitive]) -> bool {
    tensors.iter().all(|t| t.dtype() == DType::F32)
}

/// The same values in row-major order.
pub(crate) fn dense(x: Primitive) -> Primitive {
    if x.is_contiguous() {
        x
    } else {
        x.to_contiguous()
    }
}

/// The values of a [`dense`] tensor.
pub(crate) fn values(x: &Primitive) -> &[f32] {
    x.as_slice().expect("invariant: dense and f32")
}

/// Whether the values are in row-major order and all of a buffer that nothing else refers to.
pub(crate) fn is_own(x: &Primitive) -> bool {
    let layout = x.layout();
    let whole =
        layout.start_offset() == 0 && x.bytes().len() == layout.num_elements() * x.dtype().size();
    x.is_contiguous() && whole && x.is_unique()
}

/// The same values of f32 in row-major order, in a buffer with a single owner: the tensor's own memory if
/// it is not shared, else a copy.
pub(crate) fn owned(x: Primitive) -> Primitive {
    let x = dense(x);
    if is_own(&x) {
        return x;
    }
    let from = values(&x);
    let copy = filled(from.len(), BLOCK, |i, part: &mut [f32]| {
        part.copy_from_slice(nth_block(from, i, BLOCK));
    });
    tensor(copy, x.shape())
}

/// The values of an [`owned`] tensor.
pub(crate) fn values_mut(x: &mut Primitive) -> &mut [f32] {
    x.try_storage_mut()
        .expect("invariant: the buffer is not shared")
}

pub(crate) fn tensor<T: Element>(values: Vec<T>, shape: Shape) -> Primitive {
    Primitive::from_data(TensorData::new::<T, _>(values, shape))
}

/// The number of elements of a block of whole rows of length `row`.
pub(crate) fn block_of_rows(row: usize) -> usize {
    row * (BLOCK / row.max(1)).max(1)
}

/// Calls `f` with the index of each block of `block` elements and the block, in parallel if there
/// is more than one.
pub(crate) fn for_blocks<T: Send>(out: &mut [T], block: usize, f: impl Fn(usize, &mut [T]) + Sync) {
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

/// `len` values that `f` fills as in [`for_blocks`], starting from zeros.
///
/// Unlike `vec![0.0; len]` followed by `for_blocks`, each thread clears its own blocks, which are
/// then in its cache. Clearing everything on one thread takes as long as many of the kernels.
pub(crate) fn filled<T: Copy + Default + Send>(
    len: usize,
    block: usize,
    f: impl Fn(usize, &mut [T]) + Sync,
) -> Vec<T> {
    let mut values = Vec::with_capacity(len);
    for_blocks(&mut values.spare_capacity_mut()[..len], block, |i, part| {
        f(i, zeroed(part, T::default()));
    });
    // SAFETY: the capacity is at least `len`, and the blocks, which cover the first `len` elements,
    // have been written.
    unsafe { values.set_len(len) };
    values
}

/// The memory, initialised.
pub(crate) fn zeroed<T: Copy>(x: &mut [MaybeUninit<T>], zero: T) -> &mut [T] {
    x.fill(MaybeUninit::new(zero));
    // SAFETY: the line above wrote all of it.
    unsafe { x.assume_init_mut() }
}

/// `len` zeros.
pub(crate) fn zeros<T: Copy + Default + Send>(len: usize) -> Vec<T> {
    filled(len, BLOCK, |_, _| {})
}

/// The `i`th block of `block` elements.
pub(crate) fn nth_block(x: &[f32], i: usize, block: usize) -> &[f32] {
    let from = i * block;
    &x[from..(from + block).min(x.len())]
}

/// Adds up rows of length `row`, from the first to the last.
pub(crate) fn sum_of_rows(rows: &[f32], row: usize) -> Vec<f32> {
    let mut sum = vec![0.0; row];
    for part in rows.chunks_exact(row) {
        for (s, p) in sum.iter_mut().zip(part) {
            *s += p;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_is_filled_once() {
        for len in [0, 1, 7, 8, 9, 1000] {
            let values = filled(len, 8, |i, part: &mut [f32]| {
                for (j, x) in part.iter_mut().enumerate() {
                    *x += (8 * i + j) as f32;
                }
            });
            assert!(values.into_iter().eq((0..len).map(|i| i as f32)));
        }
        assert_eq!(zeros::<f32>(3 * BLOCK + 1), vec![0.0; 3 * BLOCK + 1]);
    }

    #[test]
    fn a_shared_or_partial_buffer_is_copied() {
        let x = tensor(vec![1.0f32, 2.0, 3.0, 4.0], Shape::from(vec![2, 2]));
        let mut copy = owned(x.clone());
        values_mut(&mut copy)[0] = 9.0;
        let part = x.narrow(0, 1, 1);
        assert_eq!(values(&x), [1.0, 2.0, 3.0, 4.0]);
        drop(x);
        assert_eq!(values(&owned(part)), [3.0, 4.0]);
    }
}
