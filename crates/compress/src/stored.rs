//! A quantised matrix as files hold it: the tensors of the format `pack-quantized` of compressed-tensors.
//!
//! | tensor | type | shape |
//! | --- | --- | --- |
//! | `weight_packed` | int32 | `[d_out, d_in bits / 32]` |
//! | `weight_scale` | f16 | `[d_out, d_in / group]` |
//! | `weight_zero_point` | int32 | `[ceil(d_out bits / 32), d_in / group]`, absent for symmetric groups |
//! | `weight_shape` | int64 | `[2]`: d_out, d_in |
//!
//! Zero points are packed along the outputs, the codes along the inputs. Source: `pack_quantized/base.py` and
//! `helpers.py` of compressed-tensors 0.20.

use half::{bf16, f16};

use crate::CompressError;
use crate::error::check_size;
use crate::packed::{PackedMatrix, PackedView};
use crate::scheme::Scheme;

/// A tensor's shape and its bytes in little-endian order, as in a safetensors file.
#[derive(Debug, Clone, Copy)]
pub struct StoredTensor<'a> {
    /// The shape.
    pub shape: &'a [usize],
    /// The entries.
    pub bytes: &'a [u8],
}

/// The type of stored scales. Models are often saved with bf16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleType {
    /// IEEE half precision, what this crate writes.
    F16,
    /// bfloat16, accepted where f16 can represent every scale.
    Bf16,
    /// Single precision, accepted where f16 can represent every scale.
    F32,
}

/// The tensors of a quantised matrix in a file.
#[derive(Debug, Clone, Copy)]
pub struct StoredMatrix<'a> {
    /// `weight_packed`.
    pub packed: StoredTensor<'a>,
    /// `weight_scale`.
    pub scale: StoredTensor<'a>,
    /// The type of `weight_scale`.
    pub scale_type: ScaleType,
    /// `weight_zero_point`; absent for symmetric groups.
    pub zero_point: Option<StoredTensor<'a>>,
    /// `weight_shape`.
    pub shape: StoredTensor<'a>,
}

impl StoredMatrix<'_> {
    /// Reads and checks the tensors.
    ///
    /// # Errors
    ///
    /// For shapes that do not fit the scheme or each other, missing or superfluous zero points, and scales that are
    /// non-finite or not representable in f16.
    pub fn read(&self, scheme: Scheme) -> Result<PackedMatrix, CompressError> {
        let [d_out, d_in] = self.dimensions()?;
        scheme.check(d_out, d_in)?;
        let bits = scheme.bits().count();
        let groups = d_in / scheme.group();
        check("weight_packed", &self.packed, &[d_out, d_in / 32 * bits], 4)?;
        let bytes = match self.scale_type {
            ScaleType::F16 | ScaleType::Bf16 => 2,
            ScaleType::F32 => 4,
        };
        check("weight_scale", &self.scale, &[d_out, groups], bytes)?;
        let scales = scales(self.scale.bytes, self.scale_type)?;
        let zeros = match (scheme.symmetric(), &self.zero_point) {
            (true, None) => Vec::new(),
            (false, Some(stored)) => {
                let words = (d_out * bits).div_ceil(32);
                check("weight_zero_point", stored, &[words, groups], 4)?;
                unpack_zeros(stored.bytes, d_out, groups, bits)
            }
            (symmetric, stored) => {
                return Err(CompressError::Stored {
                    tensor: "weight_zero_point",
                    found: stored.map_or("absent", |_| "present").into(),
                    expected: format!(
                        "{} for symmetric: {symmetric}",
                        match symmetric {
                            true => "absent",
                            false => "present",
                        }
                    ),
                });
            }
        };
        PackedMatrix::new(
            scheme,
            d_out,
            d_in,
            self.packed.bytes.to_vec(),
            scales,
            zeros,
        )
    }

    /// `weight_shape`.
    fn dimensions(&self) -> Result<[usize; 2], CompressError> {
        check("weight_shape", &self.shape, &[2], 8)?;
        let (numbers, _) = self.shape.bytes.as_chunks::<8>();
        let dimension = |i: usize| {
            let n = i64::from_le_bytes(numbers[i]);
            usize::try_from(n).map_err(|_| CompressError::Value {
                what: "weight_shape",
                index: i,
                found: n.to_string(),
                allowed: "a positive number",
            })
        };
        let [d_out, d_in] = [dimension(0)?, dimension(1)?];
        check_size(d_out, d_in)?;
        Ok([d_out, d_in])
    }
}

fn check(
    name: &'static str,
    tensor: &StoredTensor,
    shape: &[usize],
    bytes: usize,
) -> Result<(), CompressError> {
    let error = |found, expected| CompressError::Stored {
        tensor: name,
        found,
        expected,
    };
    if tensor.shape != shape {
        return Err(error(
            format!("shape {:?}", tensor.shape),
            format!("{shape:?}"),
        ));
    }
    // The matrix' size was checked before, so this does not overflow.
    let expected = shape.iter().product::<usize>() * bytes;
    match tensor.bytes.len() == expected {
        true => Ok(()),
        false => Err(error(
            format!("{} bytes", tensor.bytes.len()),
            format!("{expected}"),
        )),
    }
}

fn scales(bytes: &[u8], kind: ScaleType) -> Result<Vec<f16>, CompressError> {
    let (pairs, _) = bytes.as_chunks::<2>();
    let wide: Vec<f32> = match kind {
        ScaleType::F16 => return Ok(pairs.iter().map(|&b| f16::from_le_bytes(b)).collect()),
        ScaleType::Bf16 => pairs
            .iter()
            .map(|&b| bf16::from_le_bytes(b).to_f32())
            .collect(),
        ScaleType::F32 => {
            let (words, _) = bytes.as_chunks::<4>();
            words.iter().map(|&b| f32::from_le_bytes(b)).collect()
        }
    };
    let narrow = |(index, &scale): (usize, &f32)| {
        let half = f16::from_f32(scale);
        match half.to_f32() == scale {
            true => Ok(half),
            false => Err(CompressError::Value {
                what: "weight_scale",
                index,
                found: format!("{scale:e}"),
                allowed: "a number that f16 can represent",
            }),
        }
    };
    wide.iter().enumerate().map(narrow).collect()
}

fn unpack_zeros(bytes: &[u8], d_out: usize, groups: usize, bits: usize) -> Vec<u8> {
    let (words, _) = bytes.as_chunks::<4>();
    let per_word = 32 / bits;
    let zero = |row: usize, group: usize| {
        let word = u32::from_le_bytes(words[row / per_word * groups + group]);
        (word >> (row % per_word * bits)) as u8 & (u8::MAX >> (8 - bits))
    };
    (0..d_out)
        .flat_map(|row| (0..groups).map(move |group| zero(row, group)))
        .collect()
}

/// The tensors to write for a quantised matrix.
impl<'a> PackedView<'a> {
    /// `weight_packed`: its shape, and its bytes in little-endian order.
    pub fn weight_packed(&self) -> ([usize; 2], &'a [u8]) {
        let words = self.d_in / 32 * self.scheme.bits().count();
        ([self.d_out, words], self.codes)
    }

    /// `weight_scale`: its shape, and its bytes in little-endian order.
    pub fn weight_scale(&self) -> ([usize; 2], Vec<u8>) {
        let bytes = self.scales.iter().flat_map(|s| s.to_le_bytes()).collect();
        ([self.d_out, self.groups_per_row()], bytes)
    }

    /// `weight_zero_point`: its shape, and its bytes in little-endian order; none for symmetric groups.
    pub fn weight_zero_point(&self) -> Option<([usize; 2], Vec<u8>)> {
        if self.scheme.symmetric() {
            return None;
        }
        let (bits, groups) = (self.scheme.bits().count(), self.groups_per_row());
        let per_word = 32 / bits;
        let rows = self.d_out.div_ceil(per_word);
        let mut words = vec![0_u32; rows * groups];
        for (row, zeros) in self.zeros.chunks_exact(groups).enumerate() {
            let words = &mut words[row / per_word * groups..][..groups];
            for (word, &zero) in words.iter_mut().zip(zeros) {
                *word |= u32::from(zero) << (row % per_word * bits);
            }
        }
        let bytes = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        Some(([rows, groups], bytes))
    }

    /// `weight_shape`: its bytes in little-endian order; its shape is `[2]`.
    pub fn weight_shape(&self) -> Vec<u8> {
        [self.d_out, self.d_in]
            .iter()
            .flat_map(|&n| (n as i64).to_le_bytes())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_of_other_types_are_accepted_where_f16_represents_them() {
        let bytes = |x: f32| bf16::from_f32(x).to_le_bytes();
        assert_eq!(
            scales(&bytes(0.0078125), ScaleType::Bf16).unwrap(),
            [f16::from_f32(0.0078125)]
        );
        // Beyond f16's largest number, and with more digits than f16 has.
        assert!(scales(&bytes(1e6), ScaleType::Bf16).is_err());
        let error = scales(&0.1_f32.to_le_bytes(), ScaleType::F32).unwrap_err();
        assert_eq!(
            error.to_string(),
            "weight_scale 0: 1e-1, allowed is a number that f16 can represent"
        );
    }

    #[test]
    fn zero_points_are_packed_along_the_outputs() {
        let scheme = Scheme::new(4, 32, false).unwrap();
        let (d_out, d_in) = (9, 64);
        let zeros: Vec<u8> = (0..18).map(|i| i % 16).collect();
        let codes = vec![0; d_out * d_in];
        let scales = vec![f16::ONE; 18];
        let matrix =
            PackedMatrix::pack(scheme, d_out, d_in, &codes, scales, zeros.clone()).unwrap();
        let (shape, bytes) = matrix.view().weight_zero_point().unwrap();
        assert_eq!(shape, [2, 2]);
        // The first group of outputs 0 to 7 has 0, 2, .., 14, the second 1, 3, .., 15; output 8 has 0 and 1.
        let words: Vec<u32> = bytes
            .as_chunks()
            .0
            .iter()
            .map(|&b| u32::from_le_bytes(b))
            .collect();
        assert_eq!(words, [0xeca8_6420, 0xfdb9_7531, 0, 1]);
        assert_eq!(unpack_zeros(&bytes, d_out, 2, 4), zeros);
    }
}
