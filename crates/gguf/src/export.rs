//! A model directory in Hugging Face layout as one GGUF file for llama.cpp.

use std::path::Path;

use iiet_files::FileRecord;

use crate::GgufError;
use crate::blocks::{blocks, quantize, type_of};
use crate::huggingface::{CONFIG, Directory, Values};
use crate::llama::{LlamaSizes, LlamaTensor, ROPE_FACTORS, Rows, interleaved_rows, rope_factors};
use crate::metadata::Metadata;
use crate::tensors::{TensorInfo, TensorType};
use crate::tokenizer::ByteLevelBpe;
use crate::writer::write_gguf;

/// Writes the model in `dir` (`config.json`, `model.safetensors` or shards, `tokenizer.json`) to a GGUF file.
/// At most one tensor at a time is in memory.
///
/// Matrices of floats are stored as `kind`, also the embedding and the output projection; norms stay in F32.
/// Without a `kind` it is F32.
///
/// Packed matrices in symmetric groups of 32 weights keep every value: 8 bits are blocks of Q8_0, 4 bits of Q4_0. A
/// directory that has some is stored as that type, which `kind` may name, and its other matrices as F32.
///
/// # Errors
///
/// [`GgufError::Config`] for a model that llama.cpp's `llama` cannot represent, such as one with another solver
/// than explicit Euler, and for matrices that are packed in another way; [`GgufError::Metadata`] for another `kind`
/// than that of packed matrices, and for types that are only read; [`GgufError::Tokenizer`] for a tokenizer that
/// would give other tokens there; [`GgufError::RowWidth`] with the tensor whose rows cannot be divided into blocks;
/// [`GgufError::Value`] for weights that are not finite; and those of reading and writing.
pub fn export_llama(
    dir: &Path,
    out: &Path,
    kind: Option<TensorType>,
) -> Result<FileRecord, GgufError> {
    let mut directory = Directory::open(dir)?;
    let (kind, floats) = types(&directory, dir, kind)?;
    let file_type = file_type(kind)?;
    let sizes = directory.sizes().clone();
    let tensors = sizes.tensors();
    check_tensors(&mut directory, dir, &sizes, &tensors)?;
    let tokenizer = ByteLevelBpe::from_json(&directory.tokenizer()?, sizes.vocab_size)?;

    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "llama");
    metadata.set("general.type", "model");
    metadata.set("general.file_type", file_type);
    if kind.block() > 1 {
        metadata.set("general.quantization_version", QUANTIZATION_VERSION);
    }
    metadata.extend(sizes.to_metadata());
    metadata.extend(tokenizer.to_metadata(sizes.bos_token_id, &sizes.eos_token_ids)?);
    if let Some(template) = directory.chat_template()? {
        metadata.set("tokenizer.chat_template", template);
    }

    let info = |tensor: &LlamaTensor| {
        let kind = match tensor.shape.as_slice() {
            [_] => TensorType::F32,
            _ if directory.is_packed(&tensor.hugging_face) => kind,
            _ => floats,
        };
        TensorInfo::new(&tensor.gguf, tensor.shape.clone(), kind)
    };
    let mut infos: Vec<TensorInfo> = tensors.iter().map(info).collect::<Result<_, _>>()?;
    let factors = sizes
        .rope_scaling
        .map(|scaling| rope_factors(&sizes, &scaling));
    if let Some(factors) = &factors {
        let shape = vec![factors.len() as u64];
        infos.push(TensorInfo::new(ROPE_FACTORS, shape, TensorType::F32)?);
    }
    write_gguf(out, &metadata, &infos, |i| {
        let (name, kind) = (&infos[i].name, infos[i].kind);
        let Some(tensor) = tensors.get(i) else {
            // The only one that is not the model's.
            return quantize(kind, factors.as_deref().unwrap_or_default(), name);
        };
        match directory.read(&tensor.hugging_face)? {
            Values::Floats(values) => quantize(kind, &ordered(values, tensor), name),
            Values::Packed(matrix) => Ok(ordered(blocks(&matrix.view()), tensor)),
        }
    })
}

/// The type of the file, and that of its matrices of floats.
fn types(
    directory: &Directory,
    dir: &Path,
    asked: Option<TensorType>,
) -> Result<(TensorType, TensorType), GgufError> {
    let Some(scheme) = directory.scheme() else {
        let kind = asked.unwrap_or(TensorType::F32);
        return Ok((kind, kind));
    };
    let Some(packed) = type_of(scheme) else {
        let symmetric = if scheme.symmetric() {
            "symmetric"
        } else {
            "asymmetric"
        };
        let (bits, group) = (scheme.bits().count(), scheme.group());
        return Err(GgufError::Config {
            path: dir.join(CONFIG),
            key: "quantization_config".into(),
            found: format!("{bits} bits in {symmetric} groups of {group}"),
            allowed: "allowed: 8 or 4 bits in symmetric groups of 32, the blocks of Q8_0 and Q4_0"
                .into(),
        });
    };
    match asked {
        Some(other) if other != packed => Err(GgufError::metadata(
            "type",
            other,
            format!(
                "allowed: {packed}, the type of the packed matrices in {}",
                dir.display()
            ),
        )),
        _ => Ok((packed, TensorType::F32)),
    }
}

/// The elements or the bytes of a tensor in GGUF's order of rows.
fn ordered<T: Copy>(values: Vec<T>, tensor: &LlamaTensor) -> Vec<T> {
    match (tensor.rows, tensor.shape.as_slice()) {
        (Rows::Heads(heads), [rows, _]) => {
            // The tensor is in memory, so the number of its rows fits.
            let width = values.len() / *rows as usize;
            interleaved_rows(&values, heads, width)
        }
        _ => values,
    }
}

/// The version of ggml's block formats.
const QUANTIZATION_VERSION: u32 = 2;

/// llama.cpp's number for files whose matrices are of a type.
fn file_type(kind: TensorType) -> Result<u32, GgufError> {
    match kind {
        TensorType::F32 => Ok(0),
        TensorType::F16 => Ok(1),
        TensorType::Q4_0 => Ok(2),
        TensorType::Q8_0 => Ok(7),
        TensorType::Bf16 => Ok(32),
        TensorType::Q4K | TensorType::Q6K => Err(GgufError::metadata(
            "type",
            kind,
            "allowed: F32, F16, BF16, Q8_0, Q4_0; Q4_K and Q6_K are only read",
        )),
    }
}

/// Checks that the directory has exactly the model's tensors.
fn check_tensors(
    directory: &mut Directory,
    dir: &Path,
    sizes: &LlamaSizes,
    tensors: &[LlamaTensor],
) -> Result<(), GgufError> {
    let refuse = |name: &str, reason: String| {
        Err(GgufError::Tensor {
            path: dir.to_owned(),
            name: name.to_owned(),
            reason,
        })
    };
    let mut surplus = directory.names();
    for tensor in tensors {
        let name = tensor.hugging_face.as_str();
        match directory.shape(name) {
            None => return refuse(name, format!("is missing; its shape is {:?}", tensor.shape)),
            Some(shape) if shape != tensor.shape => {
                let reason = format!("shape {shape:?}; allowed: {:?}", tensor.shape);
                return refuse(name, reason);
            }
            Some(_) => surplus.remove(name),
        };
    }
    const EMBEDDING: &str = "model.embed_tokens.weight";
    const OUTPUT: &str = "lm_head.weight";
    if sizes.tie_embeddings && surplus.remove(OUTPUT) {
        let [embedding, output] = [EMBEDDING, OUTPUT].map(|name| directory.read(name));
        if embedding? != output? {
            let reason = "differs from the embedding, which tie_word_embeddings says it shares";
            return refuse(OUTPUT, reason.into());
        }
    }
    match surplus.first() {
        None => Ok(()),
        Some(name) => refuse(
            name,
            "is not a tensor of a LLaMA model of these sizes".into(),
        ),
    }
}
