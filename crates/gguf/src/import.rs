//! A GGUF file of a LLaMA model as a model directory in Hugging Face layout.

mod weights;

use std::collections::HashSet;
use std::io::{Read, Seek};
use std::path::Path;

use iiet_files::{Manifest, NewDirectory};
use serde_json::{Value, json};

use self::weights::{Packing, write_weights};
use crate::GgufError;
use crate::huggingface::{CHAT_TEMPLATE, CONFIG, TOKENIZER, TOKENIZER_CONFIG, WEIGHTS, write_text};
use crate::llama::{LlamaSizes, LlamaTensor, ROPE_FACTORS};
use crate::reader::GgufReader;
use crate::tensors::TensorType;
use crate::tokenizer::ByteLevelBpe;

/// Writes the model of a GGUF file to a new directory: `config.json`, `model.safetensors`, `tokenizer.json`,
/// `tokenizer_config.json`, the template of chats if there is one, and a manifest. The directory appears when
/// it is complete. At most one tensor at a time is in memory.
///
/// F32, F16 and BF16 keep their type. Where the quantised matrices of the layers are all of Q8_0, or all of Q4_0, the
/// matrices of this type, also the embedding and the output projection, are stored in the format `pack-quantized` of
/// compressed-tensors: symmetric groups of 32 weights in 8 or 4 bits, with the same values. All other quantised tensors
/// are stored as F32. transformers does not read directories whose embedding is packed.
///
/// # Errors
///
/// [`GgufError`] for a file that breaks the format, an architecture other than `llama`, tensors that are missing
/// or not the model's, weights or scales that are not finite, and a tokenizer that is not byte-level BPE.
pub fn import_llama(gguf: &Path, out: &Path) -> Result<(), GgufError> {
    let mut reader = GgufReader::open(gguf)?;
    let factors = match reader.tensor(ROPE_FACTORS) {
        Some(_) => Some(reader.read_f32(ROPE_FACTORS)?),
        None => None,
    };
    let tied = reader.tensor("output.weight").is_none();
    let sizes = LlamaSizes::from_metadata(reader.metadata(), factors.as_deref(), tied)?;
    let mut tensors = with_types(&reader, sizes.tensors())?;
    tensors.sort_by(|(a, _), (b, _)| a.hugging_face.cmp(&b.hugging_face));
    let packing = Packing::of(&tensors);
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
        (CONFIG, config(&sizes, packing.as_ref())),
        (TOKENIZER, tokenizer.to_json()),
        (TOKENIZER_CONFIG, tokenizer_config(&sizes, &tokenizer)),
    ];
    if let Some(template) = reader.metadata().optional_str("tokenizer.chat_template")? {
        texts.push((CHAT_TEMPLATE, template.to_owned()));
    }
    for (name, text) in texts {
        manifest.add(name, write_text(&partial.join(name), &text)?);
    }
    let weights = partial.join(WEIGHTS);
    let record = write_weights(&weights, &mut reader, &tensors, packing.as_ref())?;
    manifest.add(WEIGHTS, record);
    manifest.write(&partial)?;
    directory.finish().map_err(GgufError::io(out))
}

/// The types of the model's tensors in the file, if it has exactly these.
fn with_types<R: Read + Seek>(
    reader: &GgufReader<R>,
    tensors: Vec<LlamaTensor>,
) -> Result<Vec<(LlamaTensor, TensorType)>, GgufError> {
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
    let with_type = |tensor: LlamaTensor| {
        let name = tensor.gguf.as_str();
        let missing = || refuse(name, format!("is missing; its shape is {:?}", tensor.shape));
        let info = reader.tensor(name).ok_or_else(missing)?;
        if info.shape != tensor.shape {
            let reason = format!("shape {:?}; allowed: {:?}", info.shape, tensor.shape);
            return Err(refuse(name, reason));
        }
        let kind = info.kind;
        Ok((tensor, kind))
    };
    tensors.into_iter().map(with_type).collect()
}

/// `config.json`, which says how matrices are packed if there are such.
fn config(sizes: &LlamaSizes, packing: Option<&Packing>) -> String {
    let mut keys = sizes.to_value();
    if let Some(packing) = packing {
        keys["quantization_config"] = packing.config.to_json();
    }
    text_of(&keys)
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
    text_of(&config)
}

fn text_of(keys: &Value) -> String {
    let text = serde_json::to_string_pretty(keys);
    text.expect("invariant: plain data serialises") + "\n"
}
