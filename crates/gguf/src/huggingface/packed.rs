//! Matrices of 8 and 4 bits in model directories: `pack-quantized` of compressed-tensors.
//!
//! Instead of `NAME.weight` a file has `NAME.weight_packed`, `NAME.weight_scale`, `NAME.weight_shape` and, for groups
//! with zero points, `NAME.weight_zero_point` ([`StoredMatrix`]). The key `quantization_config` of `config.json` says
//! how to read them. Which matrices are packed is what the files hold.

use std::collections::BTreeMap;

use iiet_compress::{CompressError, PackedMatrix, ScaleType, Scheme, StoredMatrix, StoredTensor};

use super::Dtype;
use super::directory::Place;
use crate::GgufError;

/// What follows `NAME.weight` in the names of the tensors.
pub(crate) const PACKED: &str = "_packed";
pub(crate) const SCALE: &str = "_scale";
pub(crate) const SHAPE: &str = "_shape";
const ZERO_POINT: &str = "_zero_point";

/// The tensors of a packed matrix.
#[derive(Debug)]
pub(super) struct PackedTensors {
    scheme: Scheme,
    /// d_out and d_in as the shape of the codes has them. [`Self::read`] compares them with `weight_shape`.
    widths: [u64; 2],
    packed: Place,
    scale: Place,
    scale_type: ScaleType,
    shape: Place,
    zero_point: Option<Place>,
}

impl PackedTensors {
    /// Takes the tensors of the packed matrix `weight`, such as `model.layers.0.mlp.up_proj.weight`, out of those of
    /// a directory.
    pub(super) fn take(
        weight: &str,
        scheme: Scheme,
        tensors: &mut BTreeMap<String, Place>,
    ) -> Result<Self, CompressError> {
        let has_zero_points = tensors.contains_key(&format!("{weight}{ZERO_POINT}"));
        let mut take = |part: &str, tensor: &'static str, allowed: &[Dtype]| {
            let Some(place) = tensors.remove(&format!("{weight}{part}")) else {
                return Err(stored(tensor, "missing", "one beside weight_packed"));
            };
            match allowed.contains(&place.1.dtype) {
                true => Ok(place),
                false => {
                    let names: Vec<&str> = allowed.iter().map(|dtype| dtype.name()).collect();
                    let found = format!("of type {}", place.1.dtype.name());
                    Err(stored(tensor, found, names.join(", ")))
                }
            }
        };
        let packed = take(PACKED, "weight_packed", &[Dtype::I32])?;
        let floats = [Dtype::F16, Dtype::Bf16, Dtype::F32];
        let scale = take(SCALE, "weight_scale", &floats)?;
        let shape = take(SHAPE, "weight_shape", &[Dtype::I64])?;
        let zero_point = match has_zero_points {
            true => Some(take(ZERO_POINT, "weight_zero_point", &[Dtype::I32])?),
            false => None,
        };
        let scale_type = match scale.1.dtype {
            Dtype::F32 => ScaleType::F32,
            Dtype::Bf16 => ScaleType::Bf16,
            _ => ScaleType::F16,
        };
        Ok(Self {
            scheme,
            widths: widths(scheme, &packed.1.shape)?,
            packed,
            scale,
            scale_type,
            shape,
            zero_point,
        })
    }

    pub(super) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// d_out and d_in.
    pub(super) fn widths(&self) -> [u64; 2] {
        self.widths
    }

    /// The matrix. `bytes` reads those of a tensor.
    pub(super) fn read(
        &self,
        mut bytes: impl FnMut(&Place) -> Result<Vec<u8>, GgufError>,
        refuse: impl FnOnce(CompressError) -> GgufError,
    ) -> Result<PackedMatrix, GgufError> {
        let mut read = |place: &Place| -> Result<(Vec<usize>, Vec<u8>), GgufError> {
            // An empty tensor may have any other sizes; those that are too large fit no scheme.
            let sizes = place.1.shape.iter();
            let sizes = sizes.map(|n| usize::try_from(*n).unwrap_or(usize::MAX));
            Ok((sizes.collect(), bytes(place)?))
        };
        let (packed, scale) = (read(&self.packed)?, read(&self.scale)?);
        let shape = read(&self.shape)?;
        let zero_point = self.zero_point.as_ref().map(read).transpose()?;
        let matrix = StoredMatrix {
            packed: tensor(&packed),
            scale: tensor(&scale),
            scale_type: self.scale_type,
            zero_point: zero_point.as_ref().map(tensor),
            shape: tensor(&shape),
        };
        matrix.read(self.scheme).map_err(refuse)
    }
}

/// d_out and d_in of a matrix whose codes have this shape.
fn widths(scheme: Scheme, words: &[u64]) -> Result<[u64; 2], CompressError> {
    let per_word = 32 / scheme.bits().count() as u64;
    if let &[d_out, words] = words
        && let Some(d_in) = words.checked_mul(per_word)
    {
        return Ok([d_out, d_in]);
    }
    let found = format!("shape {words:?}");
    Err(stored(
        "weight_packed",
        found,
        format!("[d_out, d_in / {per_word}]"),
    ))
}

fn tensor((shape, bytes): &(Vec<usize>, Vec<u8>)) -> StoredTensor<'_> {
    StoredTensor { shape, bytes }
}

fn stored(
    tensor: &'static str,
    found: impl Into<String>,
    expected: impl Into<String>,
) -> CompressError {
    CompressError::Stored {
        tensor,
        found: found.into(),
        expected: expected.into(),
    }
}
