//! Blocks as packed matrices, and back, without a change of any value.
//!
//! A block of Q8_0 or Q4_0 is a symmetric group of 32 weights, d (q - z) with z = 128 or 8. Only the order of the bytes
//! differs: a [`PackedMatrix`] has the codes of all groups, then their scales; its codes of 8 bits have no sign, and a
//! byte has the codes of 4 bits of two inputs that follow one another.

use half::f16;
use iiet_compress::{Bits, CompressError, PackedMatrix, PackedView, Scheme};
use rayon::prelude::*;

use super::{PIECE, each, q4_0, q8_0};
use crate::tensors::TensorType;

/// The types whose blocks are groups.
const TYPES: [TensorType; 2] = [TensorType::Q8_0, TensorType::Q4_0];

/// The scheme of a type's blocks, if they are groups.
pub(crate) fn scheme_of(kind: TensorType) -> Option<Scheme> {
    let bits = match kind {
        TensorType::Q8_0 => 8,
        TensorType::Q4_0 => 4,
        _ => return None,
    };
    Scheme::new(bits, kind.block(), true).ok()
}

/// The type whose blocks are the groups of a scheme, if there is one.
pub(crate) fn type_of(scheme: Scheme) -> Option<TensorType> {
    TYPES
        .into_iter()
        .find(|kind| scheme_of(*kind) == Some(scheme))
}

/// The matrix `[d_out, d_in]` of these blocks; `scheme` is that of their type.
///
/// # Errors
///
/// For scales that are not finite, and another number of bytes.
pub(crate) fn packed(
    scheme: Scheme,
    blocks: &[u8],
    d_out: usize,
    d_in: usize,
) -> Result<PackedMatrix, CompressError> {
    let (codes, scales) = match scheme.bits() {
        Bits::Eight => (
            each(blocks, q8_0::codes),
            each(blocks, |b| [q8_0::scale_of(b)]),
        ),
        Bits::Four => (
            each(blocks, q4_0::codes),
            each(blocks, |b| [q4_0::scale_of(b)]),
        ),
    };
    PackedMatrix::new(scheme, d_out, d_in, codes, scales, Vec::new())
}

/// The blocks of a matrix whose scheme is that of a type.
pub(crate) fn blocks(matrix: &PackedView<'_>) -> Vec<u8> {
    let (_, codes) = matrix.weight_packed();
    match matrix.scheme().bits() {
        Bits::Eight => joined(codes, matrix.scales(), q8_0::block),
        Bits::Four => joined(codes, matrix.scales(), q4_0::block),
    }
}

/// Blocks of `BYTES` bytes, each of a scale and `CODES` bytes of codes.
fn joined<const CODES: usize, const BYTES: usize>(
    codes: &[u8],
    scales: &[f16],
    block: impl Fn(f16, &[u8; CODES]) -> [u8; BYTES] + Sync,
) -> Vec<u8> {
    let (codes, _) = codes.as_chunks::<CODES>();
    let groups = scales.par_iter().zip(codes).with_min_len(PIECE);
    let all: Vec<[u8; BYTES]> = groups.map(|(scale, codes)| block(*scale, codes)).collect();
    all.into_flattened()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::dequantize;

    /// The numbers of a matrix, as the format defines them.
    fn values(matrix: &PackedMatrix) -> Vec<u32> {
        let view = matrix.view();
        let codes = view.unpack();
        let codes = codes.iter().enumerate();
        codes
            .map(|(i, code)| {
                let (row, column) = (i / view.d_in(), i % view.d_in());
                view.grid(row, column / 32).value(*code).to_bits()
            })
            .collect()
    }

    #[test]
    fn blocks_and_packed_matrices_have_the_same_numbers() {
        for kind in TYPES {
            // All bytes, in three rows of two blocks whose scales are 1, -1, the smallest number, 0, -0 and 65504.
            let size = kind.block_bytes() as usize;
            let mut bytes: Vec<u8> = (0..6 * size).map(|i| (i * 7 % 256) as u8).collect();
            for (block, scale) in bytes
                .chunks_exact_mut(size)
                .zip([0x3c00u16, 0xbc00, 0x0001, 0x0000, 0x8000, 0x7bff])
            {
                block[..2].copy_from_slice(&scale.to_le_bytes());
            }
            let scheme = scheme_of(kind).unwrap();
            let matrix = packed(scheme, &bytes, 3, 64).unwrap();
            let expected = dequantize(kind, &bytes);
            let expected: Vec<u32> = expected.iter().map(|x| x.to_bits()).collect();
            assert_eq!(values(&matrix), expected, "{kind}");
            assert_eq!(blocks(&matrix.view()), bytes, "{kind}");

            bytes[size..size + 2].copy_from_slice(&[0x00, 0x7c]);
            let error = packed(scheme, &bytes, 3, 64).unwrap_err().to_string();
            assert_eq!(error, "scale 1: inf, allowed is a finite number");
            assert!(packed(scheme, &bytes, 3, 96).is_err());
        }
    }

    #[test]
    fn types_and_schemes_are_paired() {
        for kind in TensorType::ALL {
            assert_eq!(
                scheme_of(kind).and_then(type_of).is_some(),
                TYPES.contains(&kind)
            );
        }
        for (bits, group, symmetric) in [(8, 32, false), (4, 64, true), (8, 128, true)] {
            assert_eq!(type_of(Scheme::new(bits, group, symmetric).unwrap()), None);
        }
    }
}
