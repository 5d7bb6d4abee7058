//! The values of tensors in ggml's formats, bit for bit as ggml's reference functions compute them.
//!
//! A row is divided into blocks of 32 or 256 elements with a scale of their own in half precision. Sources:
//! `ggml/src/ggml-quants.c` (`quantize_row_*_ref`, `dequantize_row_*`) and `gguf-py/gguf/quants.py` in llama.cpp.

mod packed;
mod plain;
mod q4_0;
mod q4_k;
mod q6_k;
mod q8_0;

use half::f16;
pub(crate) use packed::{blocks, packed, scheme_of, type_of};
use rayon::prelude::*;

use crate::GgufError;
use crate::tensors::TensorType;

/// Blocks that a thread converts at a time.
const PIECE: usize = 1 << 10;

/// The values of whole blocks. Bytes after the last whole block are not looked at.
pub fn dequantize(kind: TensorType, bytes: &[u8]) -> Vec<f32> {
    match kind {
        TensorType::F32 => each(bytes, plain::from_f32),
        TensorType::F16 => each(bytes, plain::from_f16),
        TensorType::Bf16 => each(bytes, plain::from_bf16),
        TensorType::Q8_0 => each(bytes, q8_0::dequantize),
        TensorType::Q4_0 => each(bytes, q4_0::dequantize),
        TensorType::Q4K => each(bytes, q4_k::dequantize),
        TensorType::Q6K => each(bytes, q6_k::dequantize),
    }
}

/// The bytes of values. `name` is the tensor's, for messages.
///
/// # Errors
///
/// [`GgufError::Value`] for a value that is not finite or is not in the type's range; [`GgufError::RowWidth`]
/// if the number of values is not a multiple of the type's block; [`GgufError::Metadata`] for Q4_K and Q6_K,
/// which are not written.
pub fn quantize(kind: TensorType, values: &[f32], name: &str) -> Result<Vec<u8>, GgufError> {
    let width = values.len() as u64;
    if !width.is_multiple_of(kind.block()) {
        return Err(GgufError::RowWidth {
            name: name.to_owned(),
            width,
            kind: kind.name(),
            block: kind.block(),
        });
    }
    if let Some(element) = values.par_iter().position_first(|x| !x.is_finite()) {
        return Err(refused(kind, values, name, element));
    }
    let bytes = match kind {
        TensorType::F32 => every(values, |[x]: &[f32; 1]| Some(x.to_le_bytes())),
        TensorType::F16 => every(values, plain::to_f16),
        TensorType::Bf16 => every(values, plain::to_bf16),
        TensorType::Q8_0 => every(values, q8_0::quantize),
        TensorType::Q4_0 => every(values, q4_0::quantize),
        TensorType::Q4K | TensorType::Q6K => {
            return Err(GgufError::metadata(
                format!("tensor {name}"),
                kind,
                "allowed: F32, F16, BF16, Q8_0, Q4_0",
            ));
        }
    };
    bytes.map_err(|block| {
        // The block's largest value is the one whose scale does not fit.
        let size = kind.block() as usize;
        let at = block * size..(block + 1) * size;
        let largest = at.max_by(|a, b| values[*a].abs().total_cmp(&values[*b].abs()));
        refused(kind, values, name, largest.unwrap_or(0))
    })
}

fn refused(kind: TensorType, values: &[f32], name: &str, element: usize) -> GgufError {
    GgufError::Value {
        name: name.to_owned(),
        element,
        value: values[element],
        kind: kind.name(),
    }
}

/// What each block of `BYTES` bytes has, `N` of a kind: its values, for example.
fn each<const BYTES: usize, const N: usize, T: Copy + Default + Send>(
    bytes: &[u8],
    values: impl Fn(&[u8; BYTES]) -> [T; N] + Sync,
) -> Vec<T> {
    let (blocks, _) = bytes.as_chunks::<BYTES>();
    let mut all = vec![[T::default(); N]; blocks.len()];
    let pieces = all.par_chunks_mut(PIECE).zip(blocks.par_chunks(PIECE));
    pieces.for_each(|(to, from)| {
        for (to, from) in to.iter_mut().zip(from) {
            *to = values(from);
        }
    });
    all.into_flattened()
}

/// The bytes of blocks of `BLOCK` values, or the number of the first block that does not fit.
fn every<const BYTES: usize, const BLOCK: usize>(
    values: &[f32],
    bytes: impl Fn(&[f32; BLOCK]) -> Option<[u8; BYTES]> + Sync,
) -> Result<Vec<u8>, usize> {
    let (blocks, _) = values.as_chunks::<BLOCK>();
    let mut all = vec![[0; BYTES]; blocks.len()];
    let pieces = all.par_chunks_mut(PIECE).zip(blocks.par_chunks(PIECE));
    let misfit = pieces.enumerate().find_map_first(|(piece, (to, from))| {
        for (i, (to, from)) in to.iter_mut().zip(from).enumerate() {
            match bytes(from) {
                Some(block) => *to = block,
                None => return Some(piece * PIECE + i),
            }
        }
        None
    });
    match misfit {
        None => Ok(all.into_flattened()),
        Some(block) => Err(block),
    }
}

/// A scale in half precision, and its bytes; `None` if it is infinite.
fn scale(d: f32) -> Option<[u8; 2]> {
    let d = f16::from_f32(d);
    d.is_finite().then(|| d.to_le_bytes())
}

fn half_at(bytes: &[u8], at: usize) -> f16 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_do_not_fit_are_errors_that_name_them() {
        let mut values = vec![1.0; 96];
        values[40] = f32::NAN;
        for kind in [TensorType::F32, TensorType::Q8_0] {
            let error = quantize(kind, &values, "a").unwrap_err().to_string();
            assert!(error.starts_with("tensor a: element 40 is NaN"), "{error}");
        }
        // The largest half-precision number is 65504, and 127 times it is 8.3e6.
        values[40] = -9e6;
        for kind in [TensorType::F16, TensorType::Q8_0, TensorType::Q4_0] {
            let error = quantize(kind, &values, "a").unwrap_err().to_string();
            assert!(
                error.starts_with("tensor a: element 40 is -9000000;"),
                "{error}"
            );
        }
        values[40] = -8e6;
        assert!(quantize(TensorType::Q8_0, &values, "a").is_ok());
        assert!(quantize(TensorType::Bf16, &values, "a").is_ok());
        values[40] = f32::MAX;
        assert!(quantize(TensorType::Bf16, &values, "a").is_err());
        assert!(quantize(TensorType::Q8_0, &values[..48], "a").is_err());
        assert!(quantize(TensorType::Q4K, &[0.0; 256], "a").is_err());
    }
}
