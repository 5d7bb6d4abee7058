//! Matrices of 8 and 4 bits in model directories: `pack-quantized` of compressed-tensors.
//!
//! Instead of `NAME.weight` a file has `NAME.weight_packed`, `NAME.weight_scale`, `NAME.weight_shape` and, for
//! groups with zero points, `NAME.weight_zero_point` ([`StoredMatrix`]); `config.json` says how to read them
//! ([`QuantizationConfig`]). Which matrices are packed is what the files hold.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use iiet_blocks::{Precision, Projection};
use iiet_compress::{
    CompressError, PackedMatrix, PackedView, QuantizationConfig, ScaleType, Scheme, StoredMatrix,
    StoredTensor,
};
use iiet_kernels::PackedWeight;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::SavedModel;
use super::write::Stored;
use crate::projections::{HEAD, Projections};
use crate::{ModelError, PackedEmbedding, TokenEmbedding};

const PACKED: &str = "weight_packed";
const SCALE: &str = "weight_scale";
const ZERO_POINT: &str = "weight_zero_point";
const SHAPE: &str = "weight_shape";

/// Puts the packed matrices of a directory in the places of a model's dense ones, and takes their tensors out
/// of the weights.
pub(super) fn take_packed<M: SavedModel>(
    model: &mut M,
    config: &QuantizationConfig,
    weights: &mut BTreeMap<&str, TensorView<'_>>,
    (path, precision, device): (&Path, Precision, &Device),
) -> Result<(), ModelError> {
    let mut take = |name: &str, shape: [usize; 2]| {
        let refused = |source| ModelError::Packed {
            path: path.to_owned(),
            name: name.to_owned(),
            source: Box::new(source),
        };
        let matrix = take_matrix(name, config.scheme, weights).map_err(refused)?;
        let Some(matrix) = matrix else {
            return Ok(None);
        };
        let view = matrix.view();
        let found = [view.d_out(), view.d_in()];
        if found != shape {
            let (found, expected) = (format!("{found:?}"), format!("{shape:?}"));
            let tensor = SHAPE;
            return Err(refused(CompressError::Stored {
                tensor,
                found,
                expected,
            }));
        }
        let weight = PackedWeight::new(&view, device);
        Ok(Some(weight.with_activations(config.activations)))
    };
    for (name, projection) in model.projections_mut() {
        let [d_in, d_out] = projection.widths();
        if let Some(weight) = take(&name, [d_out, d_in])? {
            projection.pack(weight);
        }
    }
    let (name, embedding) = model.embedding_mut();
    if let Some(weight) = take(name, embedding.shape())? {
        *embedding = TokenEmbedding::Packed(PackedEmbedding {
            weight,
            states: precision,
        });
    }
    Ok(())
}

/// The packed matrix of this name, if there is one.
fn take_matrix(
    name: &str,
    scheme: Scheme,
    weights: &mut BTreeMap<&str, TensorView<'_>>,
) -> Result<Option<PackedMatrix>, CompressError> {
    let mut take = |part: &str| weights.remove(format!("{name}.{part}").as_str());
    let Some(packed) = take(PACKED) else {
        return Ok(None);
    };
    let required = |tensor, view: Option<_>| {
        view.ok_or_else(|| CompressError::Stored {
            tensor,
            found: "missing".to_owned(),
            expected: format!("one beside {PACKED}"),
        })
    };
    let scale = required(SCALE, take(SCALE))?;
    let shape = required(SHAPE, take(SHAPE))?;
    let zero_point = take(ZERO_POINT);
    of_type(PACKED, &packed, &[Dtype::I32])?;
    of_type(SCALE, &scale, &[Dtype::F16, Dtype::BF16, Dtype::F32])?;
    of_type(SHAPE, &shape, &[Dtype::I64])?;
    if let Some(zero_point) = &zero_point {
        of_type(ZERO_POINT, zero_point, &[Dtype::I32])?;
    }
    let stored = StoredMatrix {
        packed: tensor(&packed),
        scale: tensor(&scale),
        scale_type: match scale.dtype() {
            Dtype::BF16 => ScaleType::Bf16,
            Dtype::F32 => ScaleType::F32,
            _ => ScaleType::F16,
        },
        zero_point: zero_point.as_ref().map(tensor),
        shape: tensor(&shape),
    };
    stored.read(scheme).map(Some)
}

fn tensor<'a>(view: &'a TensorView<'_>) -> StoredTensor<'a> {
    StoredTensor {
        shape: view.shape(),
        bytes: view.data(),
    }
}

fn of_type(
    tensor: &'static str,
    view: &TensorView<'_>,
    allowed: &[Dtype],
) -> Result<(), CompressError> {
    match allowed.contains(&view.dtype()) {
        true => Ok(()),
        false => Err(CompressError::Stored {
            tensor,
            found: format!("of type {:?}", view.dtype()),
            expected: format!("one of {allowed:?}"),
        }),
    }
}

/// The model, if all its matrices are of floats.
///
/// # Errors
///
/// [`ModelError::Quantised`]; `dir` is where it was read.
pub fn of_floats<M: SavedModel>(model: M, dir: &Path) -> Result<M, ModelError> {
    match model.is_packed() {
        false => Ok(model),
        true => Err(ModelError::Quantised {
            path: dir.to_owned(),
        }),
    }
}

/// What a model's directory says of its packed matrices, and the tensors to write; nothing if it has none.
pub(super) fn packed_tensors<M: Projections>(
    model: &M,
    dir: &Path,
) -> Result<Option<(QuantizationConfig, Vec<Stored>)>, ModelError> {
    let (name, embedding) = model.embedding();
    let mut matrices: Vec<(String, &PackedWeight)> = Vec::new();
    let mut ignore = Vec::new();
    let mut sort = |name: String, packed: Option<_>| match packed {
        Some(weight) => matrices.push((name, weight)),
        None => ignore.push(name),
    };
    for (name, projection) in model.projections() {
        sort(name, Projection::packed(projection));
    }
    sort(name.to_owned(), embedding.packed());
    let Some((_, first)) = matrices.first() else {
        return Ok(None);
    };
    let how = |weight: &PackedWeight| (weight.scheme(), weight.activations());
    let (scheme, activations) = how(first);
    let head = matrices.iter().any(|(name, _)| name == HEAD);
    let mut tensors = Vec::new();
    for (name, weight) in matrices {
        let refused = |source| ModelError::Packed {
            path: dir.to_owned(),
            name: name.clone(),
            source: Box::new(source),
        };
        if how(weight) != (scheme, activations) {
            return Err(refused(CompressError::Option {
                option: "the scheme of a matrix",
                found: format!("{:?}", how(weight)),
                allowed: "the same for all matrices of a model",
            }));
        }
        tensors.extend(stored(&name, weight).map_err(refused)?);
    }
    // Of what is not packed, readers look for projections alone; transformers has an output projection also where
    // it is the embedding.
    ignore.retain(|other| other != name);
    if !head && !ignore.iter().any(|other| other == HEAD) {
        ignore.push(HEAD.to_owned());
    }
    let config = QuantizationConfig {
        scheme,
        activations,
        activation_order: false,
        embeddings: embedding.packed().is_some(),
        ignore,
    };
    Ok(Some((config, tensors)))
}

/// The tensors of a packed matrix, read from the device when they are written.
fn stored(name: &str, weight: &PackedWeight) -> Result<Vec<Stored>, CompressError> {
    let matrix = weight.to_matrix()?;
    let view = matrix.view();
    let tensor = |part: &str, dtype, shape: Vec<usize>, read: fn(&PackedView) -> Vec<u8>| {
        let weight = weight.clone();
        Stored::of_bytes(format!("{name}.{part}"), dtype, shape, move || {
            let matrix = weight.to_matrix();
            read(&matrix.expect("invariant: it was read before").view())
        })
    };
    let (packed, _) = view.weight_packed();
    let (scale, _) = view.weight_scale();
    let mut tensors = vec![
        tensor(PACKED, Dtype::I32, packed.into(), |view| {
            view.weight_packed().1.to_vec()
        }),
        tensor(SCALE, Dtype::F16, scale.into(), |view| {
            view.weight_scale().1
        }),
        tensor(SHAPE, Dtype::I64, vec![2], |view| view.weight_shape()),
    ];
    if let Some((shape, _)) = view.weight_zero_point() {
        tensors.push(tensor(ZERO_POINT, Dtype::I32, shape.into(), |view| {
            view.weight_zero_point()
                .map(|(_, bytes)| bytes)
                .unwrap_or_default()
        }));
    }
    Ok(tensors)
}
