//! Detection of non-finite weights.
//!
//! A single NaN or infinity makes all outputs of a model meaningless, and most metrics (the largest logit, a
//! mean accuracy) hide it. So all weights are checked when a directory is read: one multithreaded pass over
//! the bytes of the file, which are in memory by then.

use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::Precision;

/// Bytes that a thread checks at a time. A multiple of every element size.
const PIECE: usize = 1 << 18;

/// The smallest absolute value that is rounded to infinity in a precision: half a unit in the last place
/// above the largest finite number.
pub(super) fn limit(precision: Precision) -> f32 {
    match precision {
        Precision::F32 => f32::INFINITY,
        // (2^8 - 1 + 1/2) * 2^120 and (2^11 - 1 + 1/2) * 2^5.
        Precision::Bf16 => f32::from_bits(0x7f7f_8000),
        Precision::F16 => 65520.0,
    }
}

/// The index and value of the first element that is not finite in a precision.
pub(super) fn first_misfit(view: &TensorView<'_>, stored: Precision) -> Option<(usize, f32)> {
    let bytes = view.data();
    match view.dtype() {
        Dtype::F32 => find(bytes, f32::from_le_bytes, limit(stored)),
        Dtype::BF16 => find(bytes, |b| bf16::from_le_bytes(b).to_f32(), limit(stored)),
        // Converting half-precision values one at a time is slow, and their largest value is finite in every
        // precision.
        Dtype::F16 => find_bits(bytes).map(|at| {
            let value = f16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]);
            (at, value.to_f32())
        }),
        _ => None,
    }
}

/// The first element of `SIZE` bytes whose absolute value reaches the limit, or is NaN.
fn find<const SIZE: usize>(
    bytes: &[u8],
    read: impl Fn([u8; SIZE]) -> f32 + Sync,
    limit: f32,
) -> Option<(usize, f32)> {
    let fits = |element: &[u8; SIZE]| read(*element).abs() < limit;
    let pieces = bytes.par_chunks(PIECE).enumerate();
    pieces.find_map_first(|(number, piece)| {
        let (elements, _) = piece.as_chunks::<SIZE>();
        // Without early exit the compiler vectorises the comparison.
        if elements.iter().fold(true, |all, x| all & fits(x)) {
            return None;
        }
        let at = elements.iter().position(|x| !fits(x))?;
        Some((number * (PIECE / SIZE) + at, read(elements[at])))
    })
}

/// The first half-precision value whose exponent has all bits set.
fn find_bits(bytes: &[u8]) -> Option<usize> {
    const EXPONENT: u16 = 0x7c00;
    let fits = |element: &[u8; 2]| u16::from_le_bytes(*element) & EXPONENT != EXPONENT;
    let pieces = bytes.par_chunks(PIECE).enumerate();
    pieces.find_map_first(|(number, piece)| {
        let (elements, _) = piece.as_chunks::<2>();
        if elements.iter().fold(true, |all, x| all & fits(x)) {
            return None;
        }
        let at = elements.iter().position(|x| !fits(x))?;
        Some(number * (PIECE / 2) + at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_the_smallest_values_rounded_to_infinity() {
        for (precision, round) in [
            (
                Precision::Bf16,
                (|x| bf16::from_f32(x).to_f32()) as fn(f32) -> f32,
            ),
            (Precision::F16, |x| f16::from_f32(x).to_f32()),
        ] {
            let limit = limit(precision);
            assert!(round(limit).is_infinite(), "{precision}");
            assert!(round(limit.next_down()).is_finite(), "{precision}");
        }
    }

    #[test]
    fn finds_the_first_non_finite_value_of_each_type() {
        let n = 3 * PIECE;
        for (at, value) in [
            (0, f32::NAN),
            (PIECE / 4, f32::INFINITY),
            (n - 1, f32::NEG_INFINITY),
        ] {
            let mut values = vec![1.5f32; n];
            values[at] = value;
            values[n - 1] = f32::NEG_INFINITY;
            let as_f32: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            let as_bf16 = values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes());
            let as_f16 = values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes());
            for (dtype, bytes) in [
                (Dtype::F32, as_f32.clone()),
                (Dtype::BF16, as_bf16.collect()),
                (Dtype::F16, as_f16.collect()),
            ] {
                let view = TensorView::new(dtype, vec![n], &bytes).unwrap();
                let (found, what) = first_misfit(&view, Precision::F32).unwrap();
                assert_eq!(found, at, "{dtype:?}");
                assert_eq!(what.is_nan(), value.is_nan(), "{dtype:?}");
            }
        }
    }

    #[test]
    fn finite_extremes_pass_unless_the_precision_is_too_narrow() {
        let values = [f32::MAX, f32::MIN_POSITIVE, -0.0, 65519.0];
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![4], &bytes).unwrap();
        assert_eq!(first_misfit(&view, Precision::F32), None);
        assert_eq!(first_misfit(&view, Precision::F16), Some((0, f32::MAX)));
        assert_eq!(first_misfit(&view, Precision::Bf16), Some((0, f32::MAX)));
        let view = TensorView::new(Dtype::F32, vec![1], &bytes[12..]).unwrap();
        assert_eq!(first_misfit(&view, Precision::F16), None);
    }
}
