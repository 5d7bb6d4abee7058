//! Half-precision values, read as f32.
//!
//! A processor computes in f32 whatever its memory holds, but half-precision values take half the memory
//! bandwidth.

use burn::backend::TensorMetadata;
use burn::tensor::{DType, bf16, f16};
use half::slice::HalfFloatSliceExt;

use super::Primitive;
use super::buffer::{dense, filled, nth_block, tensor, values};
use super::simd::vectorised;

/// Elements that a thread converts at a time, in its L1 cache.
const BLOCK: usize = 1 << 12;

/// The values of a dense tensor of any float type but f64.
#[derive(Clone, Copy)]
pub(crate) enum Floats<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

impl<'a> Floats<'a> {
    /// `None` for a tensor of another type, or one that is not dense.
    pub(crate) fn of(x: &'a Primitive) -> Option<Self> {
        Some(match x.dtype() {
            DType::F32 => Self::F32(x.as_slice()?),
            DType::F16 => Self::F16(x.as_slice()?),
            DType::BF16 => Self::Bf16(x.as_slice()?),
            _ => return None,
        })
    }

    /// The values of a dense tensor.
    ///
    /// # Panics
    ///
    /// If it is neither f32 nor half precision, or not dense.
    pub(crate) fn of_dense(x: &'a Primitive) -> Self {
        Self::of(x).expect("invariant: dense, of at most 32 bits")
    }

    /// The values of an f32 tensor.
    ///
    /// # Panics
    ///
    /// If they are of half precision.
    pub(crate) fn as_f32(self) -> &'a [f32] {
        match self {
            Self::F32(x) => x,
            _ => panic!("values in f32 expected"),
        }
    }

    pub(crate) fn len(self) -> usize {
        match self {
            Self::F32(x) => x.len(),
            Self::F16(x) => x.len(),
            Self::Bf16(x) => x.len(),
        }
    }

    /// All values in f32.
    pub(crate) fn wide(self) -> Vec<f32> {
        filled(self.len(), BLOCK, |i, part| {
            self.read(i * BLOCK, part);
        })
    }

    /// `len` elements from index `at` on.
    pub(crate) fn part(self, at: usize, len: usize) -> Self {
        let range = at..at + len;
        match self {
            Self::F32(x) => Self::F32(&x[range]),
            Self::F16(x) => Self::F16(&x[range]),
            Self::Bf16(x) => Self::Bf16(&x[range]),
        }
    }

    /// All values in f32; `buffer` is used for those of half precision alone.
    pub(crate) fn read_all<'s>(self, buffer: &'s mut Vec<f32>) -> &'s [f32]
    where
        'a: 's,
    {
        match self {
            Self::F32(x) => x,
            halves => {
                buffer.resize(halves.len(), 0.0);
                halves.read(0, buffer)
            }
        }
    }

    /// The elements from index `at` on, in f32. Their number is the length of `scratch`.
    pub(crate) fn read<'s>(self, at: usize, scratch: &'s mut [f32]) -> &'s [f32]
    where
        'a: 's,
    {
        let range = at..at + scratch.len();
        match self {
            Self::F32(x) => &x[range],
            Self::F16(x) => {
                widen_f16(&x[range], scratch);
                scratch
            }
            Self::Bf16(x) => {
                widen_bf16(&x[range], scratch);
                scratch
            }
        }
    }
}

/// The same value in f32. Unlike [`bf16::to_f32`], this vectorises.
#[inline(always)]
pub(crate) fn wide_bf16(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

/// The same as [`bf16::from_f32`], to nearest even, but vectorisable.
#[inline(always)]
pub(crate) fn nearest_bf16(x: f32) -> bf16 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    // Rounding would overflow a NaN's bits: store a quiet NaN.
    let nan = bits >> 16 | 0x40;
    let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
    bf16::from_bits(if is_nan { nan } else { nearest } as u16)
}

/// The same values in f32, by the processor's conversion if it has one.
///
/// # Panics
///
/// If the lengths differ.
pub(crate) fn widen_f16(from: &[f16], to: &mut [f32]) {
    assert_eq!(from.len(), to.len(), "as many values");
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has the instructions.
        return unsafe { avx512::widen_f16(from, to) };
    }
    from.convert_to_f32_slice(to);
}

/// The values rounded to f16, to nearest even.
///
/// # Panics
///
/// If the lengths differ.
pub(crate) fn round_to_f16(from: &[f32], to: &mut [f16]) {
    assert_eq!(from.len(), to.len(), "as many values");
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has the instructions.
        return unsafe { avx512::round_to_f16(from, to) };
    }
    to.convert_from_f32_slice(from);
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{HalfFloatSliceExt, f16};

    #[target_feature(enable = "avx512f")]
    pub(super) fn widen_f16(from: &[f16], to: &mut [f32]) {
        let ((from, rest), (to, to_rest)) = (from.as_chunks::<16>(), to.as_chunks_mut::<16>());
        for (from, to) in from.iter().zip(to) {
            // SAFETY: 16 values each.
            unsafe {
                let halves = _mm256_loadu_si256(from.as_ptr().cast());
                _mm512_storeu_ps(to.as_mut_ptr(), _mm512_cvtph_ps(halves));
            }
        }
        rest.convert_to_f32_slice(to_rest);
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn round_to_f16(from: &[f32], to: &mut [f16]) {
        let ((from, rest), (to, to_rest)) = (from.as_chunks::<16>(), to.as_chunks_mut::<16>());
        for (from, to) in from.iter().zip(to) {
            // SAFETY: 16 values each.
            unsafe {
                let halves =
                    _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm512_loadu_ps(from.as_ptr()));
                _mm256_storeu_si256(to.as_mut_ptr().cast(), halves);
            }
        }
        to_rest.convert_from_f32_slice(rest);
    }
}

/// A half-precision tensor in f32; any other tensor unchanged.
pub(crate) fn widened(x: Primitive) -> Primitive {
    match x.dtype() {
        DType::F16 | DType::BF16 => in_memory_order(x, |x| {
            let values = Floats::of(&x)
                .expect("invariant: dense, in half precision")
                .wide();
            tensor(values, x.shape())
        }),
        _ => x,
    }
}

/// An f32 tensor rounded to half precision, to nearest even; unchanged if `dtype` is f32.
pub(crate) fn rounded(x: Primitive, dtype: DType) -> Primitive {
    match dtype {
        DType::F32 => x,
        DType::BF16 => in_memory_order(x, |x| tensor(in_bf16(values(&x)), x.shape())),
        DType::F16 => in_memory_order(x, |x| tensor(in_f16(values(&x)), x.shape())),
        _ => unreachable!("invariant: f32 or half precision"),
    }
}

/// Applies `f`, which takes dense tensors, in memory order: transposed matrices, and heads that are a view of
/// `[batch, seq, heads, head_dim]`, keep their layout.
fn in_memory_order(x: Primitive, f: impl FnOnce(Primitive) -> Primitive) -> Primitive {
    let axes = match x.shape().num_dims() {
        2 => (0, 1),
        4 => (1, 2),
        _ => return f(dense(x)),
    };
    if !x.is_contiguous() {
        let turned = x.transpose(axes.0, axes.1);
        if turned.is_contiguous() {
            return f(turned).transpose(axes.0, axes.1);
        }
    }
    f(dense(x))
}

fn each_rounded<T: Copy + Default + Send>(
    from: &[f32],
    round: impl Fn(&[f32], &mut [T]) + Sync,
) -> Vec<T> {
    filled(from.len(), BLOCK, |i, part| {
        round(nth_block(from, i, BLOCK), part);
    })
}

/// The values rounded to f16.
pub(crate) fn in_f16(x: &[f32]) -> Vec<f16> {
    each_rounded(x, round_to_f16)
}

/// The values rounded to bf16.
pub(crate) fn in_bf16(x: &[f32]) -> Vec<bf16> {
    each_rounded(x, round_to_bf16)
}

vectorised! {
    fn widen_bf16(from: &[bf16], to: &mut [f32]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = wide_bf16(from);
        }
    }

    fn round_to_bf16(from: &[f32], to: &mut [bf16]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = nearest_bf16(from);
        }
    }
}

/// The operands of a kernel in f32, and the dtype of the first, to which results are rounded. `Err` returns
/// the operands if one is neither f32 nor half precision: kernels take no other types.
pub(crate) fn as_f32<const N: usize>(
    operands: [Primitive; N],
) -> Result<([Primitive; N], DType), [Primitive; N]> {
    if at_most_f32(&operands) {
        let dtype = operands[0].dtype();
        Ok((operands.map(widened), dtype))
    } else {
        Err(operands)
    }
}

/// Whether all tensors are bf16.
pub(crate) fn all_bf16(tensors: &[&Primitive]) -> bool {
    tensors.iter().all(|t| t.dtype() == DType::BF16)
}

/// Whether all tensors are f16.
pub(crate) fn all_f16(tensors: &[&Primitive]) -> bool {
    tensors.iter().all(|t| t.dtype() == DType::F16)
}

/// Whether all tensors are f32 or half precision.
pub(crate) fn at_most_f32<'a>(tensors: impl IntoIterator<Item = &'a Primitive>) -> bool {
    let narrow = |dtype| matches!(dtype, DType::F32 | DType::F16 | DType::BF16);
    tensors.into_iter().all(|t| narrow(t.dtype()))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Shape;

    use super::*;

    #[test]
    fn rounding_is_to_nearest_even() {
        // Every bf16, its neighbours in f32, the midpoint to the next, and special values.
        let around = |bits: u16| {
            let bits = u32::from(bits) << 16;
            [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map(|more| f32::from_bits(bits + more))
        };
        let x: Vec<f32> = (0..=u16::MAX).flat_map(around).collect();
        let shape = Shape::from(vec![x.len()]);
        let wide = tensor(x.clone(), shape);
        let bf16s = rounded(wide.clone(), DType::BF16);
        let f16s = rounded(wide, DType::F16);
        let bf16s = bf16s.as_slice::<bf16>().unwrap();
        let f16s = f16s.as_slice::<f16>().unwrap();
        for ((x, b), f) in x.into_iter().zip(bf16s).zip(f16s) {
            assert_eq!(b.to_bits(), bf16::from_f32(x).to_bits(), "{x:e}");
            assert!(*f == f16::from_f32(x) || x.is_nan() && f.is_nan(), "{x:e}");
        }
    }

    #[test]
    fn every_half_converts_exactly() {
        let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        let mut wide = vec![0.0; halves.len()];
        widen_f16(&halves, &mut wide);
        for bits in 0..=u16::MAX {
            let (b, f) = (bf16::from_bits(bits), f16::from_bits(bits));
            for (found, expected) in [
                (wide_bf16(b), b.to_f32()),
                (wide[usize::from(bits)], f.to_f32()),
            ] {
                assert!(
                    found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()),
                    "{bits:#06x}: {found}, expected {expected}"
                );
            }
        }
    }
}
