//! Halves, read as f32.
//!
//! A processor adds up in f32 whatever its memory holds; halves are half as much to fetch.

use burn::backend::ops::FloatTensorOps;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, bf16, f16};
use half::slice::HalfFloatSliceExt;

use super::Primitive;
use super::buffer::{dense, filled, tensor};

/// Elements converted by a thread at a time.
const BLOCK: usize = 1 << 14;

/// The values of a dense tensor of any float type but f64.
#[derive(Clone, Copy)]
pub(super) enum Floats<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

impl<'a> Floats<'a> {
    /// `None` for a tensor of another type, or that is not dense.
    pub(super) fn of(x: &'a Primitive) -> Option<Self> {
        Some(match x.dtype() {
            DType::F32 => Self::F32(x.as_slice()?),
            DType::F16 => Self::F16(x.as_slice()?),
            DType::BF16 => Self::Bf16(x.as_slice()?),
            _ => return None,
        })
    }

    pub(super) fn len(self) -> usize {
        match self {
            Self::F32(x) => x.len(),
            Self::F16(x) => x.len(),
            Self::Bf16(x) => x.len(),
        }
    }

    /// The elements from `at` on, in f32; `scratch` is as long as what is wanted.
    pub(super) fn read<'s>(&'s self, at: usize, scratch: &'s mut [f32]) -> &'s [f32] {
        let range = at..at + scratch.len();
        match self {
            Self::F32(x) => &x[range],
            Self::F16(x) => {
                x[range].convert_to_f32_slice(scratch);
                scratch
            }
            Self::Bf16(x) => {
                x[range].convert_to_f32_slice(scratch);
                scratch
            }
        }
    }
}

/// The same number in f32; written for loops that are made wide, which [`bf16::to_f32`] is not.
#[inline(always)]
pub(super) fn wide_bf16(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

/// The same number in f32.
///
/// The bits of an f16, moved to where an f32 has its, stand for a number 2^112 times smaller, also where
/// they are subnormal.
#[inline(always)]
pub(super) fn wide_f16(x: f16) -> f32 {
    let bits = u32::from(x.to_bits());
    let (sign, magnitude) = ((bits & 0x8000) << 16, (bits & 0x7fff) << 13);
    let finite = (f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23)).to_bits();
    let special = if magnitude >= 0x7c00 << 13 {
        0xff << 23
    } else {
        0
    };
    f32::from_bits(sign | finite | special)
}

/// A tensor of halves in f32, in the same memory order where that is dense or a transposed matrix; any
/// other tensor as it is.
pub(super) fn widened(x: Primitive) -> Primitive {
    if !matches!(x.dtype(), DType::F16 | DType::BF16) {
        return x;
    }
    if x.shape().num_dims() == 2 && !x.is_contiguous() {
        let turned = x.transpose(0, 1);
        if turned.is_contiguous() {
            return widened(turned).transpose(0, 1);
        }
    }
    let x = dense(x);
    let from = Floats::of(&x).expect("invariant: dense, and a half");
    let values = filled(from.len(), BLOCK, |i, part| {
        from.read(i * BLOCK, part);
    });
    tensor(values, x.shape())
}

/// Runs a kernel that takes f32 on f32 and halves, and rounds its result to the type of the first.
pub(super) fn in_f32<const N: usize>(
    tensors: [Primitive; N],
    kernel: impl FnOnce([Primitive; N]) -> Primitive,
) -> Primitive {
    let dtype = tensors[0].dtype();
    Flex::float_cast(kernel(tensors.map(widened)), dtype.into())
}

/// Whether all tensors are f32 or halves.
pub(super) fn at_most_f32(tensors: &[&Primitive]) -> bool {
    let narrow = |dtype| matches!(dtype, DType::F32 | DType::F16 | DType::BF16);
    tensors.iter().all(|t| narrow(t.dtype()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_the_same_number() {
        for bits in 0..=u16::MAX {
            let (b, f) = (bf16::from_bits(bits), f16::from_bits(bits));
            for (found, expected) in [(wide_bf16(b), b.to_f32()), (wide_f16(f), f.to_f32())] {
                assert!(
                    found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()),
                    "{bits:#06x}: {found} for {expected}"
                );
            }
        }
    }
}
