//! A small model in a directory, in floats or packed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use iiet_compress::{Activations, QuantizationConfig, Range, Scheme, round};
use iiet_files::SafetensorsHeader;
use iiet_gguf::llama::{Llama3Scaling, LlamaSizes};
use iiet_gguf::tokenizer::{ByteLevelBpe, Split, Token, TokenKind};
use serde_json::{Map, Value, json};

pub const EMBEDDING: &str = "model.embed_tokens.weight";
pub const OUTPUT: &str = "lm_head.weight";
pub const UP: &str = "model.layers.1.mlp.up_proj.weight";

/// Two layers with grouped queries and scaled frequencies.
pub fn sizes() -> LlamaSizes {
    LlamaSizes {
        vocab_size: 260,
        d_model: 64,
        d_ff: 96,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 16,
        seq_len: 128,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: Some(Llama3Scaling {
            factor: 4.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 64,
        }),
        tie_embeddings: false,
        bos_token_id: Some(257),
        eos_token_ids: vec![0],
    }
}

/// The end of a document, all bytes, a beginning, and one merge.
pub fn tokenizer() -> ByteLevelBpe {
    let token = |text: &str, kind| Token {
        text: text.into(),
        kind,
    };
    let mut next = 0x100;
    let mut tokens = vec![token("<|endoftext|>", TokenKind::Special)];
    for byte in 0..=255u8 {
        let visible = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let c = match visible {
            true => char::from(byte),
            false => {
                next += 1;
                char::from_u32(next - 1).unwrap()
            }
        };
        tokens.push(token(&c.to_string(), TokenKind::Normal));
    }
    tokens.push(token("<|begin|>", TokenKind::Special));
    tokens.push(token("ab", TokenKind::Normal));
    ByteLevelBpe {
        tokens,
        merges: vec![("a".into(), "b".into())],
        split: Split::Llama3,
        ignore_merges: false,
        before: Some(257),
        after: None,
    }
}

/// Weights that differ everywhere, in name order.
pub fn weights(sizes: &LlamaSizes) -> Vec<(String, Vec<u64>, Vec<f32>)> {
    let mut seed = 1u32;
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let mut tensors = sizes.tensors();
    tensors.sort_by(|a, b| a.hugging_face.cmp(&b.hugging_face));
    let all = tensors.into_iter().map(|tensor| {
        let elements = tensor.shape.iter().product::<u64>();
        let values = (0..elements).map(|_| next()).collect();
        (tensor.hugging_face, tensor.shape, values)
    });
    all.collect()
}

/// `model.safetensors` with weights in f32.
pub fn write_weights(dir: &Path, tensors: &[(String, Vec<u64>, Vec<f32>)]) {
    let stored = tensors.iter().map(|(name, shape, values)| {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        (name.clone(), ("F32".to_owned(), shape.clone(), bytes))
    });
    write_tensors(dir, &stored.collect());
}

/// The tensors of a safetensors file by name: type, shape and bytes.
pub type Tensors = BTreeMap<String, (String, Vec<u64>, Vec<u8>)>;

/// `model.safetensors` with these tensors.
pub fn write_tensors(dir: &Path, tensors: &Tensors) {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, (dtype, shape, bytes)) in tensors {
        let begin = data.len();
        data.extend(bytes);
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert(name.clone(), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let length = (header.len() as u64).to_le_bytes();
    let bytes = [&length[..], &header, &data].concat();
    fs::write(dir.join("model.safetensors"), bytes).unwrap();
}

/// What [`write_tensors`] writes.
pub fn read_tensors(dir: &Path) -> Tensors {
    let bytes = fs::read(dir.join("model.safetensors")).unwrap();
    let (length, rest) = bytes.split_first_chunk().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header = SafetensorsHeader::parse(header).unwrap();
    let tensors = header.tensors.into_iter().map(|(name, entry)| {
        let (begin, end) = entry.data_offsets;
        let bytes = data[begin as usize..end as usize].to_vec();
        (name, (entry.dtype, entry.shape, bytes))
    });
    tensors.collect()
}

/// A directory of a model of these sizes.
pub fn model(dir: &Path, sizes: &LlamaSizes) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("config.json"), sizes.to_json()).unwrap();
    fs::write(dir.join("tokenizer.json"), tokenizer().to_json()).unwrap();
    write_weights(dir, &weights(sizes));
}

/// The text of `config.json` as a value.
pub fn read_config(dir: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(dir.join("config.json")).unwrap()).unwrap()
}

/// Sets a key of `config.json`.
pub fn change_config(dir: &Path, key: &str, value: Value) {
    let mut config = read_config(dir);
    config[key] = value;
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
}

/// Symmetric groups of 32 weights.
pub fn scheme(bits: u64) -> Scheme {
    Scheme::new(bits, 32, true).unwrap()
}

/// A directory whose matrices are rounded and packed, all but those that `keep` names.
pub fn packed_model(dir: &Path, sizes: &LlamaSizes, scheme: Scheme, keep: &[&str]) {
    model(dir, sizes);
    let mut tensors = read_tensors(dir);
    for (name, shape, values) in weights(sizes) {
        let &[d_out, d_in] = shape.as_slice() else {
            continue;
        };
        if keep.contains(&name.as_str()) {
            continue;
        }
        let [rows, width] = [d_out as usize, d_in as usize];
        let matrix = round(&values, rows, width, scheme, Range::LeastSquares).unwrap();
        let view = matrix.view();
        tensors.remove(&name);
        let wide = |shape: [usize; 2]| shape.map(|n| n as u64).to_vec();
        let mut insert = |part: &str, dtype: &str, shape: Vec<u64>, bytes: Vec<u8>| {
            let stored = (dtype.to_owned(), shape, bytes);
            tensors.insert(format!("{name}{part}"), stored);
        };
        let (shape, codes) = view.weight_packed();
        insert("_packed", "I32", wide(shape), codes.to_vec());
        let (shape, scales) = view.weight_scale();
        insert("_scale", "F16", wide(shape), scales);
        insert("_shape", "I64", vec![2], view.weight_shape());
        if let Some((shape, zeros)) = view.weight_zero_point() {
            insert("_zero_point", "I32", wide(shape), zeros);
        }
    }
    write_tensors(dir, &tensors);
    let modules = keep.iter().filter(|name| **name != EMBEDDING);
    let modules = modules.map(|name| name.trim_end_matches(".weight").to_owned());
    let config = QuantizationConfig {
        scheme,
        activations: Activations::F32,
        activation_order: false,
        embeddings: !keep.contains(&EMBEDDING),
        ignore: modules.collect(),
    };
    change_config(dir, "quantization_config", config.to_json());
}
