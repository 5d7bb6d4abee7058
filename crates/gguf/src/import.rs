//! A GGUF file of a LLaMA model as a model directory in Hugging Face layout.

use std::collections::HashSet;
use std::path::Path;

use iiet_files::{Manifest, NewDirectory};
use serde_json::json;

use crate::GgufError;
use crate::blocks::quantize;
use crate::huggingface::{
    CHAT_TEMPLATE, CONFIG, StoredTensor, TOKENIZER, TOKENIZER_CONFIG, WEIGHTS, write_safetensors,
    write_text,
};
use crate::llama::{LlamaSizes, LlamaTensor, ROPE_FACTORS, Rows, half_split_rows};
use crate::reader::GgufReader;
use crate::tensors::TensorType;
use crate::tokenizer::ByteLevelBpe;

/// Writes the model of a GGUF file to a new directory: `config.json`, `model.safetensors`, `tokenizer.json`,
/// `tokenizer_config.json`, the template of chats if there is one, and a manifest. The directory appears when
/// it is complete. At most one tensor at a time is in memory.
///
/// F32, F16 and BF16 keep their type, and quantised tensors are stored as F32.
///
/// # Errors
///
/// [`GgufError`] for a file that breaks the format, an architecture other than `llama`, tensors that are missing
/// or not the model's, weights that are not finite, and a tokenizer that is not byte-level BPE.
pub fn import_llama(gguf: &Path, out: &Path) -> Result<(), GgufError> {
    let mut reader = GgufReader::open(gguf)?;
    let factors = match reader.tensor(ROPE_FACTORS) {
        Some(_) => Some(reader.read_f32(ROPE_FACTORS)?),
        None => None,
    };
    let tied = reader.tensor("output.weight").is_none();
    let sizes = LlamaSizes::from_metadata(reader.metadata(), factors.as_deref(), tied)?;
    let mut tensors = sizes.tensors();
    tensors.sort_by(|a, b| a.hugging_face.cmp(&b.hugging_face));
    let stored = check_tensors(&reader, &tensors)?;
    let tokenizer = ByteLevelBpe::from_metadata(reader.metadata())?;
    if tokenizer.tokens.len() != sizes.vocab_size {
        return Err(GgufError::metadata(
            "tokenizer.ggml.tokens",
            format!("{} tokens", tokenizer.tokens.len()),
            format!("allowed: the model's vocab_size, {}", sizes.vocab_size),
        ));
    }

    let directory = NewDirectory::create(out).map_err(GgufError::io(out))?;
    let partial = directory.partial().to_owned();
    let mut manifest = Manifest::new();
    let mut texts = vec![
        (CONFIG, sizes.to_json()),
        (TOKENIZER, tokenizer.to_json()),
        (TOKENIZER_CONFIG, tokenizer_config(&sizes, &tokenizer)),
    ];
    if let Some(template) = reader.metadata().optional_str("tokenizer.chat_template")? {
        texts.push((CHAT_TEMPLATE, template.to_owned()));
    }
    for (name, text) in texts {
        manifest.add(name, write_text(&partial.join(name), &text)?);
    }
    let record = write_safetensors(&partial.join(WEIGHTS), &stored, |i| {
        read(&mut reader, &tensors[i], stored[i].kind)
    })?;
    manifest.add(WEIGHTS, record);
    manifest.write(&partial)?;
    directory.finish().map_err(GgufError::io(out))
}

/// Checks that the file has exactly the model's tensors, and says how each is to be stored.
fn check_tensors<R: std::io::Read + std::io::Seek>(
    reader: &GgufReader<R>,
    tensors: &[LlamaTensor],
) -> Result<Vec<StoredTensor>, GgufError> {
    let refuse = |name: &str, reason: String| GgufError::Tensor {
        path: reader.path().to_owned(),
        name: name.to_owned(),
        reason,
    };
    let names: HashSet<&str> = tensors.iter().map(|tensor| tensor.gguf.as_str()).collect();
    let known = |name: &str| name == ROPE_FACTORS || names.contains(name);
    let mut all = reader.tensors().iter();
    if let Some(other) = all.find(|info| !known(&info.name)) {
        let reason = "is not a tensor of a LLaMA model of these sizes";
        return Err(refuse(&other.name, reason.into()));
    }
    let stored = |tensor: &LlamaTensor| {
        let name = tensor.gguf.as_str();
        let missing = || refuse(name, format!("is missing; its shape is {:?}", tensor.shape));
        let info = reader.tensor(name).ok_or_else(missing)?;
        if info.shape != tensor.shape {
            let reason = format!("shape {:?}; allowed: {:?}", info.shape, tensor.shape);
            return Err(refuse(name, reason));
        }
        let kind = match info.kind {
            TensorType::F16 | TensorType::Bf16 => info.kind,
            _ => TensorType::F32,
        };
        let bytes = info.elements().checked_mul(kind.block_bytes());
        Ok(StoredTensor {
            name: tensor.hugging_face.clone(),
            kind,
            shape: tensor.shape.clone(),
            bytes: bytes.ok_or_else(|| refuse(name, "is larger than 2^64 bytes".into()))?,
        })
    };
    tensors.iter().map(stored).collect()
}

/// The bytes of a tensor as they are stored, in Hugging Face's order of rows.
fn read<R: std::io::Read + std::io::Seek>(
    reader: &mut GgufReader<R>,
    tensor: &LlamaTensor,
    kind: TensorType,
) -> Result<Vec<u8>, GgufError> {
    let mut values = reader.read_f32(&tensor.gguf)?;
    if let (Rows::Heads(heads), [_, width]) = (tensor.rows, tensor.shape.as_slice()) {
        // The tensor is in memory, so its width fits.
        values = half_split_rows(&values, heads, *width as usize);
    }
    // Half-precision values are the same after they were single precision.
    quantize(kind, &values, &tensor.gguf)
}

/// `tokenizer_config.json`, which names the tokens that begin and end a text.
fn tokenizer_config(sizes: &LlamaSizes, tokenizer: &ByteLevelBpe) -> String {
    let text = |id: u32| {
        let token = tokenizer.tokens.get(id as usize);
        token.map(|token| token.text.as_str())
    };
    let mut config = json!({
        "clean_up_tokenization_spaces": false,
        "tokenizer_class": "PreTrainedTokenizerFast",
    });
    if let Some(bos) = sizes.bos_token_id.and_then(text) {
        config["bos_token"] = json!(bos);
    }
    if let Some(eos) = sizes.eos_token_ids.first().copied().and_then(text) {
        config["eos_token"] = json!(eos);
    }
    let text = serde_json::to_string_pretty(&config);
    text.expect("invariant: plain data serialises") + "\n"
}
