//! The weights of a GGUF file as `model.safetensors`, one tensor in memory at a time.

use std::io::{Read, Seek};
use std::mem;
use std::path::Path;

use half::f16;
use iiet_compress::{Activations, QuantizationConfig, Scheme};
use iiet_files::FileRecord;

use crate::GgufError;
use crate::blocks::{packed, quantize, scheme_of};
use crate::huggingface::{Dtype, PACKED, SCALE, SHAPE, StoredTensor, write_safetensors};
use crate::llama::{LlamaTensor, Rows, half_split_rows};
use crate::reader::GgufReader;
use crate::tensors::TensorType;

const EMBEDDING: &str = "model.embed_tokens";
const OUTPUT: &str = "lm_head";

/// Which matrices are stored packed: those of one type, whose blocks are groups.
pub(super) struct Packing {
    kind: TensorType,
    pub(super) config: QuantizationConfig,
}

impl Packing {
    /// None if the quantised matrices of the layers are of several types, or of one that has no packed form: a
    /// directory has one scheme.
    pub(super) fn of(tensors: &[(LlamaTensor, TensorType)]) -> Option<Self> {
        let matrices = tensors.iter().filter(|(tensor, _)| tensor.shape.len() == 2);
        let of_layers = matrices
            .clone()
            .filter(|(tensor, _)| tensor.gguf.starts_with("blk."));
        let mut quantised = of_layers
            .map(|(_, kind)| *kind)
            .filter(|kind| kind.block() > 1);
        let kind = quantised.next()?;
        let scheme = scheme_of(kind)?;
        if quantised.any(|other| other != kind) {
            return None;
        }
        let (mut embeddings, mut ignore, mut tied) = (false, Vec::new(), true);
        for (tensor, found) in matrices {
            let module = tensor.hugging_face.strip_suffix(".weight");
            let module = module.expect("invariant: every tensor of a LLaMA is a weight");
            tied &= module != OUTPUT;
            if module == EMBEDDING {
                embeddings = *found == kind;
            } else if *found != kind {
                ignore.push(module.to_owned());
            }
        }
        if tied {
            // transformers has this module in tied models, too.
            ignore.push(OUTPUT.to_owned());
        }
        let config = QuantizationConfig {
            scheme,
            activations: Activations::F32,
            activation_order: false,
            embeddings,
            ignore,
        };
        Some(Self { kind, config })
    }
}

/// What a tensor of the directory has of one of the file's.
enum Part {
    /// The values.
    Floats(TensorType),
    /// The codes of a packed matrix `[d_out, d_in]`. Its scales follow.
    Codes(Scheme, [u64; 2]),
    /// The scales of the same matrix.
    Scales,
    /// The shape of a packed matrix.
    Shape([u64; 2]),
}

/// Writes `model.safetensors`. `tensors` are those of the file.
pub(super) fn write_weights<R: Read + Seek>(
    path: &Path,
    reader: &mut GgufReader<R>,
    tensors: &[(LlamaTensor, TensorType)],
    packing: Option<&Packing>,
) -> Result<FileRecord, GgufError> {
    let (mut stored, mut parts) = (Vec::new(), Vec::new());
    for (tensor, kind) in tensors {
        for (suffix, dtype, shape, part) in parts_of(tensor, *kind, packing) {
            let name = format!("{}{suffix}", tensor.hugging_face);
            let of_tensor = StoredTensor::new(name, dtype, shape);
            stored.push(of_tensor.ok_or_else(|| GgufError::Tensor {
                path: reader.path().to_owned(),
                name: tensor.gguf.clone(),
                reason: "is larger than 2^64 bytes".into(),
            })?);
            parts.push((tensor, part));
        }
    }
    let mut scales = Vec::new();
    write_safetensors(path, &stored, |i| {
        let (tensor, part) = &parts[i];
        let name = tensor.gguf.as_str();
        match part {
            Part::Floats(kind) => {
                let values = ordered(reader.read_f32(name)?, tensor);
                // Half-precision values are the same after they were single precision.
                quantize(*kind, &values, name)
            }
            Part::Codes(scheme, widths) => {
                let blocks = ordered(reader.read(name)?, tensor);
                // The tensor is in memory, so its sizes fit.
                let [d_out, d_in] = widths.map(|width| width as usize);
                let matrix = packed(*scheme, &blocks, d_out, d_in);
                let matrix = matrix.map_err(GgufError::packed(reader.path(), name))?;
                let (codes, of_groups, _) = matrix.into_parts();
                scales = of_groups.into_iter().flat_map(f16::to_le_bytes).collect();
                Ok(codes)
            }
            Part::Scales => Ok(mem::take(&mut scales)),
            Part::Shape(widths) => Ok(widths.map(u64::to_le_bytes).concat()),
        }
    })
}

/// The tensors of the directory for one of the file's: the end of each name, its type, its shape, and what it has.
fn parts_of(
    tensor: &LlamaTensor,
    kind: TensorType,
    packing: Option<&Packing>,
) -> Vec<(&'static str, Dtype, Vec<u64>, Part)> {
    let packing = packing.filter(|packing| packing.kind == kind);
    if let (Some(packing), &[d_out, d_in]) = (packing, tensor.shape.as_slice()) {
        let scheme = packing.config.scheme;
        let (bits, group) = (scheme.bits().count() as u64, scheme.group() as u64);
        let codes = Part::Codes(scheme, [d_out, d_in]);
        let shape = Part::Shape([d_out, d_in]);
        return vec![
            (PACKED, Dtype::I32, vec![d_out, d_in / 32 * bits], codes),
            (SCALE, Dtype::F16, vec![d_out, d_in / group], Part::Scales),
            (SHAPE, Dtype::I64, vec![2], shape),
        ];
    }
    let (dtype, kind) = match kind {
        TensorType::F16 => (Dtype::F16, kind),
        TensorType::Bf16 => (Dtype::Bf16, kind),
        _ => (Dtype::F32, TensorType::F32),
    };
    vec![("", dtype, tensor.shape.clone(), Part::Floats(kind))]
}

/// The elements or the bytes of a tensor in Hugging Face's order of rows.
fn ordered<T: Copy>(values: Vec<T>, tensor: &LlamaTensor) -> Vec<T> {
    match (tensor.rows, tensor.shape.as_slice()) {
        (Rows::Heads(heads), [rows, _]) => {
            // The tensor is in memory, so the number of its rows fits.
            let width = values.len() / *rows as usize;
            half_split_rows(&values, heads, width)
        }
        _ => values,
    }
}
