//! Whole models: a directory becomes a GGUF file and comes back.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use iiet_gguf::llama::{Llama3Scaling, LlamaSizes};
use iiet_gguf::tokenizer::{ByteLevelBpe, Split, Token, TokenKind};
use iiet_gguf::{GgufReader, TensorType, dequantize, export_llama, import_llama, quantize};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn sizes() -> LlamaSizes {
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
fn tokenizer() -> ByteLevelBpe {
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
fn weights(sizes: &LlamaSizes) -> Vec<(String, Vec<u64>, Vec<f32>)> {
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

fn write_weights(dir: &Path, tensors: &[(String, Vec<u64>, Vec<f32>)]) {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, shape, values) in tensors {
        let begin = data.len();
        data.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert(name.clone(), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let length = (header.len() as u64).to_le_bytes();
    let bytes = [&length[..], &header, &data].concat();
    fs::write(dir.join("model.safetensors"), bytes).unwrap();
}

fn model(dir: &Path, sizes: &LlamaSizes) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("config.json"), sizes.to_json()).unwrap();
    fs::write(dir.join("tokenizer.json"), tokenizer().to_json()).unwrap();
    write_weights(dir, &weights(sizes));
}

fn change_config(dir: &Path, key: &str, value: Value) {
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config[key] = value;
    fs::write(path, config.to_string()).unwrap();
}

#[test]
fn a_model_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let [dir, file, back, again] =
        ["model", "a.gguf", "back", "b.gguf"].map(|n| folder.path().join(n));
    for tie_embeddings in [false, true] {
        let sizes = LlamaSizes {
            tie_embeddings,
            ..sizes()
        };
        model(&dir, &sizes);
        fs::write(dir.join("chat_template.jinja"), "{{ messages }}").unwrap();
        let record = export_llama(&dir, &file, TensorType::F32).unwrap();
        assert_eq!(record.bytes, fs::metadata(&file).unwrap().len());
        import_llama(&file, &back).unwrap();
        for name in ["config.json", "tokenizer.json", "chat_template.jinja"] {
            let [old, new] = [&dir, &back].map(|dir| fs::read_to_string(dir.join(name)).unwrap());
            assert_eq!(old, new, "{name}");
        }
        // The imported directory has a manifest, which is compared.
        export_llama(&back, &again, TensorType::F32).unwrap();
        assert_eq!(fs::read(&file).unwrap(), fs::read(&again).unwrap());
        let reader = GgufReader::open(&file).unwrap();
        assert_eq!(reader.tensor("output.weight").is_none(), tie_embeddings);
        assert_eq!(reader.tensor("rope_freqs.weight").unwrap().shape, [8]);
        assert_eq!(
            reader.tensor("blk.0.attn_norm.weight").unwrap().kind,
            TensorType::F32
        );
        fs::remove_dir_all(&back).unwrap();
    }
}

#[test]
fn quantised_models_have_the_dequantised_weights() {
    let folder = tempfile::tempdir().unwrap();
    let [dir, file, back, plain] =
        ["model", "a.gguf", "back", "b.gguf"].map(|n| folder.path().join(n));
    model(&dir, &sizes());
    for kind in [
        TensorType::F16,
        TensorType::Bf16,
        TensorType::Q8_0,
        TensorType::Q4_0,
    ] {
        export_llama(&dir, &file, kind).unwrap();
        import_llama(&file, &back).unwrap();
        export_llama(&back, &plain, TensorType::F32).unwrap();
        let [mut quantised, mut plain] =
            [&file, &plain].map(|path| GgufReader::open(path).unwrap());
        for tensor in sizes().tensors() {
            let found = plain.read_f32(&tensor.gguf).unwrap();
            assert_eq!(
                found,
                quantised.read_f32(&tensor.gguf).unwrap(),
                "{}",
                tensor.gguf
            );
        }
        let embedding = weights(&sizes()).into_iter();
        let (_, _, values) = embedding
            .into_iter()
            .find(|(name, ..)| name == "model.embed_tokens.weight")
            .unwrap();
        let expected = dequantize(kind, &quantize(kind, &values, "").unwrap());
        assert_eq!(plain.read_f32("token_embd.weight").unwrap(), expected);
        fs::remove_dir_all(&back).unwrap();
    }
}

#[test]
fn rows_of_queries_and_keys_are_interleaved() {
    let folder = tempfile::tempdir().unwrap();
    let [dir, file] = ["model", "a.gguf"].map(|n| folder.path().join(n));
    model(&dir, &sizes());
    export_llama(&dir, &file, TensorType::F32).unwrap();
    let mut reader = GgufReader::open(&file).unwrap();
    let all = weights(&sizes());
    let name = "model.layers.1.self_attn.k_proj.weight";
    let (.., original) = all.iter().find(|(known, ..)| known == name).unwrap();
    let found = reader.read_f32("blk.1.attn_k.weight").unwrap();
    // Two heads of sixteen rows with 64 elements: row 3 of the second head is 2 * 1 + 1, row 8 + 1 there.
    assert_eq!(found[19 * 64..20 * 64], original[25 * 64..26 * 64]);
    assert_eq!(found[16 * 64..17 * 64], original[16 * 64..17 * 64]);
}

#[test]
fn models_that_llama_cpp_does_not_compute_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [dir, file] = ["model", "a.gguf"].map(|n| folder.path().join(n));
    let refused = |kind| {
        let error = export_llama(&dir, &file, kind).unwrap_err().to_string();
        assert!(!file.exists(), "{error}");
        error
    };
    model(&dir, &sizes());
    change_config(&dir, "solver", "predictor_corrector".into());
    let error = refused(TensorType::F32);
    assert!(
        error.contains("solver: found \"predictor_corrector\"; allowed: explicit_euler"),
        "{error}"
    );
    change_config(&dir, "solver", "explicit_euler".into());
    assert!(refused(TensorType::Q6K).contains("Q4_K and Q6_K are only read"));

    change_config(&dir, "intermediate_size", 97.into());
    let error = refused(TensorType::F32);
    assert!(
        error.contains("mlp.gate_proj.weight: shape [96, 64]; allowed: [97, 64]"),
        "{error}"
    );

    model(
        &dir,
        &LlamaSizes {
            d_ff: 80,
            ..sizes()
        },
    );
    let error = refused(TensorType::Q8_0);
    let expected =
        "tensor blk.0.ffn_down.weight: rows of 80 elements; allowed for Q8_0: multiples of 32";
    assert!(error.starts_with(expected), "{error}");

    model(&dir, &sizes());
    let mut all = weights(&sizes());
    all[3].2[5] = f32::NAN;
    write_weights(&dir, &all);
    assert!(refused(TensorType::F32).contains("element 5 is NaN"));
    all.remove(3);
    write_weights(&dir, &all);
    assert!(refused(TensorType::F32).contains("is missing"));
    let mut all = weights(&sizes());
    all.push((
        "model.layers.2.mlp.up_proj.weight".into(),
        vec![1],
        vec![0.0],
    ));
    write_weights(&dir, &all);
    assert!(refused(TensorType::F32).contains("up_proj.weight: is not a tensor of a LLaMA"));

    model(&dir, &sizes());
    change_config(&dir, "tie_word_embeddings", true.into());
    assert!(refused(TensorType::F32).contains("lm_head.weight: differs from the embedding"));
    model(&dir, &sizes());
    change_config(&dir, "vocab_size", 259.into());
    assert!(refused(TensorType::F32).contains("shape [260, 64]; allowed: [259, 64]"));
}

#[test]
fn files_of_other_models_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [dir, file, back] = ["model", "a.gguf", "back"].map(|n| folder.path().join(n));
    let blocks = Path::new("tests/data/blocks.gguf");
    let error = import_llama(blocks, &back).unwrap_err().to_string();
    assert!(
        error.contains("general.architecture: found blocks; allowed: llama"),
        "{error}"
    );
    model(&dir, &sizes());
    export_llama(&dir, &file, TensorType::F32).unwrap();
    fs::create_dir(&back).unwrap();
    fs::write(back.join("mine"), "").unwrap();
    let error = import_llama(&file, &back).unwrap_err().to_string();
    assert!(error.contains("is not empty"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_models_do_not_panic(damage in prop::collection::vec((0usize..12_000, any::<u8>()), 1..4)) {
        static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
            let folder = tempfile::tempdir().unwrap();
            let [dir, file] = ["model", "a.gguf"].map(|n| folder.path().join(n));
            model(&dir, &LlamaSizes { n_layers: 1, ..sizes() });
            export_llama(&dir, &file, TensorType::Q8_0).unwrap();
            fs::read(&file).unwrap()
        });
        let folder = tempfile::tempdir().unwrap();
        let [file, back] = ["a.gguf", "back"].map(|n| folder.path().join(n));
        let mut bytes = WHOLE.clone();
        for (at, byte) in damage {
            bytes[at] = byte;
        }
        fs::write(&file, bytes).unwrap();
        let imported = import_llama(&file, &back);
        prop_assert_eq!(imported.is_ok(), back.exists());
    }
}
