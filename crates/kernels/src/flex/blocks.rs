//! Tensors of f32 or half precision, read and written in f32, a block at a time.
//!
//! Half-precision values are converted in buffers of the size of a block, which stay in a core's caches, so
//! that memory neither holds nor moves a copy of a tensor in f32. Blocks of f32 are the tensor's own memory.

use std::cell::Cell;
use std::mem::MaybeUninit;

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Shape, bf16, f16};
use rayon::prelude::*;

use super::Primitive;
use super::buffer::{self, tensor, zeroed};
use super::halves::{Floats, round_to_bf16, round_to_f16};

/// Approximate number of elements per block in half precision: fewer than of f32, so that the buffers stay in the
/// caches too.
const BLOCK_OF_HALVES: usize = 1 << 12;

/// The number of elements of a block of whole rows of length `row`.
fn block_of_rows(row: usize, dtype: DType) -> usize {
    match dtype {
        DType::F32 => buffer::block_of_rows(row),
        _ => row * (BLOCK_OF_HALVES / row.max(1)).max(1),
    }
}

thread_local! {
    // Taken while in use: rayon may run another block on a thread that waits.
    static READ: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static WRITTEN: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Calls `f` with `N` parts of `length` values of a thread's buffer.
fn with_buffer<const N: usize, R>(
    buffer: &'static std::thread::LocalKey<Cell<Vec<f32>>>,
    length: usize,
    f: impl FnOnce([&mut [f32]; N]) -> R,
) -> R {
    let mut values = buffer.take();
    if values.len() < N * length {
        values.resize(N * length, 0.0);
    }
    let mut parts = values.chunks_exact_mut(length);
    let result = f([(); N].map(|()| parts.next().expect("invariant: as many as resized for")));
    buffer.set(values);
    result
}

/// Calls `f` with the `i`-th blocks of `block` elements of some tensors, in f32.
pub(crate) fn read<const N: usize, R>(
    inputs: [Floats; N],
    i: usize,
    block: usize,
    f: impl FnOnce([&[f32]; N]) -> R,
) -> R {
    with_buffer(&READ, block, |mut buffers: [&mut [f32]; N]| {
        let mut buffers = buffers.iter_mut();
        f(inputs.map(|input| {
            let from = i * block;
            let length = block.min(input.len() - from);
            let buffer = buffers.next().expect("invariant: one for each input");
            input.read(from, &mut buffer[..length])
        }))
    })
}

/// A tensor to compute by blocks: its type, its number of elements and those of a block.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    pub(crate) dtype: DType,
    pub(crate) len: usize,
    pub(crate) block: usize,
}

impl Output {
    /// A result of the shape and type of a tensor, by blocks of whole rows of `row` elements.
    pub(crate) fn like(x: &Primitive, row: usize) -> Self {
        Self {
            dtype: x.dtype(),
            len: x.shape().num_elements(),
            block: block_of_rows(row, x.dtype()),
        }
    }

    /// For each block of this tensor, `sums` values of f32.
    pub(crate) fn sums_of_blocks(self, sums: usize) -> Self {
        Self {
            dtype: DType::F32,
            len: self.len.div_ceil(self.block) * sums,
            block: sums,
        }
    }
}

/// Computes tensors by blocks, in parallel if there are several. `f` receives the index of a block and its
/// values in f32, which start from zero.
///
/// # Panics
///
/// If the tensors do not have equally many blocks.
pub(crate) fn compute<const M: usize>(
    outputs: [Output; M],
    f: impl Fn(usize, [&mut [f32]; M]) + Sync,
) -> [Computed; M] {
    let count = |output: &Output| output.len.div_ceil(output.block.max(1));
    let blocks = outputs.first().map_or(0, count);
    assert!(
        outputs.iter().all(|output| count(output) == blocks),
        "tensors of unequally many blocks"
    );
    let mut computed = outputs.map(Computed::with_capacity);
    let mut unwritten = computed
        .each_mut()
        .map(|computed| computed.blocks().into_iter());
    let tasks: Vec<[Block; M]> = (0..blocks)
        .map(|_| {
            unwritten
                .each_mut()
                .map(|blocks| blocks.next().expect("invariant: counted above"))
        })
        .collect();
    let run = |(i, blocks): (usize, [Block; M])| write(blocks, |values| f(i, values));
    match blocks {
        1 => tasks.into_iter().enumerate().for_each(run),
        _ => tasks.into_par_iter().enumerate().for_each(run),
    }
    for computed in &mut computed {
        // SAFETY: `write` has initialised every block, and the blocks cover all elements.
        unsafe { computed.set_written() };
    }
    computed
}

/// A tensor's values, written by blocks.
pub(crate) struct Computed {
    output: Output,
    values: Values,
}

enum Values {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

enum Block<'a> {
    F32(&'a mut [MaybeUninit<f32>]),
    F16(&'a mut [MaybeUninit<f16>]),
    Bf16(&'a mut [MaybeUninit<bf16>]),
}

impl Computed {
    fn with_capacity(output: Output) -> Self {
        let values = match output.dtype {
            DType::F32 => Values::F32(Vec::with_capacity(output.len)),
            DType::F16 => Values::F16(Vec::with_capacity(output.len)),
            DType::BF16 => Values::Bf16(Vec::with_capacity(output.len)),
            _ => unreachable!("invariant: f32 or half precision"),
        };
        Self { output, values }
    }

    fn blocks(&mut self) -> Vec<Block<'_>> {
        let Output { len, block, .. } = self.output;
        match &mut self.values {
            Values::F32(x) => blocks_of(x, len, block).map(Block::F32).collect(),
            Values::F16(x) => blocks_of(x, len, block).map(Block::F16).collect(),
            Values::Bf16(x) => blocks_of(x, len, block).map(Block::Bf16).collect(),
        }
    }

    /// # Safety
    ///
    /// All elements must be initialised.
    unsafe fn set_written(&mut self) {
        let len = self.output.len;
        // SAFETY: the capacity is `len`; the caller guarantees the rest.
        unsafe {
            match &mut self.values {
                Values::F32(x) => x.set_len(len),
                Values::F16(x) => x.set_len(len),
                Values::Bf16(x) => x.set_len(len),
            }
        }
    }

    /// The values of a result in f32.
    ///
    /// # Panics
    ///
    /// If it has another type.
    pub(crate) fn in_f32(self) -> Vec<f32> {
        match self.values {
            Values::F32(x) => x,
            _ => panic!("the values are not f32"),
        }
    }

    pub(crate) fn tensor(self, shape: Shape) -> Primitive {
        match self.values {
            Values::F32(x) => tensor(x, shape),
            Values::F16(x) => tensor(x, shape),
            Values::Bf16(x) => tensor(x, shape),
        }
    }
}

fn blocks_of<T>(
    x: &mut Vec<T>,
    len: usize,
    block: usize,
) -> impl Iterator<Item = &mut [MaybeUninit<T>]> {
    x.spare_capacity_mut()[..len].chunks_mut(block.max(1))
}

impl Block<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(x) => x.len(),
            Self::F16(x) => x.len(),
            Self::Bf16(x) => x.len(),
        }
    }
}

/// Calls `f` with the blocks' values in f32, from zeros, and writes them, rounded to the blocks' types.
fn write<const M: usize>(mut blocks: [Block; M], f: impl FnOnce([&mut [f32]; M])) {
    let longest = blocks.iter().map(Block::len).max().unwrap_or(0);
    with_buffer(&WRITTEN, longest, |mut buffers: [&mut [f32]; M]| {
        let mut parts = buffers.iter_mut();
        f(blocks.each_mut().map(|block| {
            let buffer = parts.next().expect("invariant: one for each block");
            match block {
                Block::F32(x) => zeroed(x, 0.0),
                halves => {
                    let values = &mut buffer[..halves.len()];
                    values.fill(0.0);
                    values
                }
            }
        }));
        for (block, values) in blocks.into_iter().zip(buffers) {
            match block {
                Block::F32(_) => {}
                Block::F16(x) => round_to_f16(&values[..x.len()], zeroed(x, f16::ZERO)),
                Block::Bf16(x) => round_to_bf16(&values[..x.len()], zeroed(x, bf16::ZERO)),
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_read_and_written_by_blocks() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for len in [0, 1, 7, 8, 9, 1000] {
                let x: Vec<f32> = (0..len).map(|i| (i % 100) as f32).collect();
                let shape = || Shape::from(vec![len]);
                let input = super::super::halves::rounded(tensor(x.clone(), shape()), dtype);
                let of_8 = Output {
                    dtype,
                    len,
                    block: 8,
                };
                let of_2 = of_8.sums_of_blocks(2);
                let [doubled, sums] = compute([of_8, of_2], |i, [doubled, sums]| {
                    let x = Floats::of(&input).unwrap();
                    read([x, x], i, 8, |[x, y]| {
                        for ((to, x), y) in doubled.iter_mut().zip(x).zip(y) {
                            *to += x + y;
                            sums[0] += x;
                        }
                    });
                });
                let doubled = super::super::halves::widened(doubled.tensor(shape()));
                let expected: Vec<f32> = x.iter().map(|x| 2.0 * x).collect();
                assert_eq!(buffer::values(&doubled), expected);
                assert_eq!(sums.in_f32().iter().sum::<f32>(), x.iter().sum::<f32>());
            }
        }
    }
}
