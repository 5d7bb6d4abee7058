//! Whole models: a directory becomes a GGUF file and comes back.

mod damaged;
mod example;
mod packed;

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use iiet_gguf::llama::LlamaSizes;
use iiet_gguf::{GgufReader, TensorType, export_llama, import_llama};
use proptest::prelude::*;

use crate::example::{change_config, model, read_tensors, sizes, weights, write_weights};

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
        let record = export_llama(&dir, &file, Some(TensorType::F32)).unwrap();
        assert_eq!(record.bytes, fs::metadata(&file).unwrap().len());
        import_llama(&file, &back).unwrap();
        for name in ["config.json", "tokenizer.json", "chat_template.jinja"] {
            let [old, new] = [&dir, &back].map(|dir| fs::read_to_string(dir.join(name)).unwrap());
            assert_eq!(old, new, "{name}");
        }
        // The imported directory has a manifest, which is compared.
        export_llama(&back, &again, Some(TensorType::F32)).unwrap();
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
fn half_precision_keeps_its_type() {
    let folder = tempfile::tempdir().unwrap();
    let [dir, file, back, again] =
        ["model", "a.gguf", "back", "b.gguf"].map(|n| folder.path().join(n));
    model(&dir, &sizes());
    for kind in [TensorType::F16, TensorType::Bf16] {
        export_llama(&dir, &file, Some(kind)).unwrap();
        import_llama(&file, &back).unwrap();
        for (name, (dtype, shape, _)) in read_tensors(&back) {
            let expected = if shape.len() == 1 { "F32" } else { kind.name() };
            assert_eq!(dtype, expected, "{name}");
        }
        export_llama(&back, &again, Some(kind)).unwrap();
        assert_eq!(fs::read(&file).unwrap(), fs::read(&again).unwrap());
        fs::remove_dir_all(&back).unwrap();
    }
}

#[test]
fn rows_of_queries_and_keys_are_interleaved() {
    let folder = tempfile::tempdir().unwrap();
    let [dir, file] = ["model", "a.gguf"].map(|n| folder.path().join(n));
    model(&dir, &sizes());
    export_llama(&dir, &file, Some(TensorType::F32)).unwrap();
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
        let error = export_llama(&dir, &file, Some(kind))
            .unwrap_err()
            .to_string();
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
    export_llama(&dir, &file, Some(TensorType::F32)).unwrap();
    fs::create_dir(&back).unwrap();
    fs::write(back.join("mine"), "").unwrap();
    let error = import_llama(&file, &back).unwrap_err().to_string();
    assert!(error.contains("is not empty"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_models_do_not_panic(
        four_bits in any::<bool>(),
        damage in prop::collection::vec((0usize..12_000, any::<u8>()), 1..4),
    ) {
        static WHOLE: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
            let folder = tempfile::tempdir().unwrap();
            let [dir, file] = ["model", "a.gguf"].map(|n| folder.path().join(n));
            model(&dir, &LlamaSizes { n_layers: 1, ..sizes() });
            [TensorType::Q8_0, TensorType::Q4_0].map(|kind| {
                export_llama(&dir, &file, Some(kind)).unwrap();
                fs::read(&file).unwrap()
            })
        });
        let folder = tempfile::tempdir().unwrap();
        let [file, back] = ["a.gguf", "back"].map(|n| folder.path().join(n));
        let mut bytes = WHOLE[usize::from(four_bits)].clone();
        for (at, byte) in damage {
            bytes[at] = byte;
        }
        fs::write(&file, bytes).unwrap();
        let imported = import_llama(&file, &back);
        prop_assert_eq!(imported.is_ok(), back.exists());
    }
}
