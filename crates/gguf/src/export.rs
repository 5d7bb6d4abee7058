//! A model directory in Hugging Face layout as one GGUF file for llama.cpp.

use std::path::Path;

use iiet_files::FileRecord;

use crate::GgufError;
use crate::blocks::quantize;
use crate::huggingface::Directory;
use crate::llama::{LlamaSizes, LlamaTensor, ROPE_FACTORS, Rows, interleaved_rows, rope_factors};
use crate::metadata::Metadata;
use crate::tensors::{TensorInfo, TensorType};
use crate::tokenizer::ByteLevelBpe;
use crate::writer::write_gguf;

/// Writes the model in `dir` (`config.json`, `model.safetensors` or shards, `tokenizer.json`) to a GGUF file.
/// At most one tensor at a time is in memory.
///
/// Matrices are stored as `kind`, also the embedding and the output projection; norms stay in F32.
///
/// # Errors
///
/// [`GgufError::Config`] for a model that llama.cpp's `llama` cannot represent, such as one with another solver
/// than explicit Euler; [`GgufError::Tokenizer`] for a tokenizer that would give other tokens there;
/// [`GgufError::RowWidth`] with the tensor whose rows cannot be divided into blocks; [`GgufError::Value`] for
/// weights that are not finite; and those of reading and writing.
pub fn export_llama(dir: &Path, out: &Path, kind: TensorType) -> Result<FileRecord, GgufError> {
    let file_type = file_type(kind)?;
    let mut directory = Directory::open(dir)?;
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
            _ => kind,
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
        let mut values = directory.read_f32(&tensor.hugging_face)?;
        if let (Rows::Heads(heads), [_, width]) = (tensor.rows, tensor.shape.as_slice()) {
            // The tensor is in memory, so its width fits.
            values = interleaved_rows(&values, heads, *width as usize);
        }
        quantize(kind, &values, name)
    })
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
        let [embedding, output] = [EMBEDDING, OUTPUT].map(|name| directory.read_f32(name));
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
