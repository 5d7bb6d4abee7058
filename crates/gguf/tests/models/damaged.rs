//! Directories of packed matrices that are refused, and damaged ones.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use iiet_compress::Scheme;
use iiet_gguf::llama::LlamaSizes;
use iiet_gguf::{TensorType, export_llama};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::example::{
    EMBEDDING, Tensors, UP, change_config, packed_model, read_tensors, scheme, sizes, write_tensors,
};

#[test]
fn other_schemes_and_types_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let [dir, file] = ["model", "a.gguf"].map(|n| folder.path().join(n));
    let wide = LlamaSizes {
        d_ff: 128,
        ..sizes()
    };
    for (scheme, expected) in [
        (
            Scheme::new(4, 32, false),
            "config.json: quantization_config: found 4 bits in asymmetric groups of 32; allowed: 8 or 4 bits in \
             symmetric groups of 32",
        ),
        (
            Scheme::new(8, 64, true),
            "found 8 bits in symmetric groups of 64; allowed: 8 or 4 bits",
        ),
    ] {
        packed_model(&dir, &wide, scheme.unwrap(), &[]);
        for asked in [None, Some(TensorType::Q8_0)] {
            let error = export_llama(&dir, &file, asked).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
    packed_model(&dir, &sizes(), scheme(8), &[EMBEDDING]);
    for other in [TensorType::F32, TensorType::Q4_0, TensorType::Q4K] {
        let error = export_llama(&dir, &file, Some(other))
            .unwrap_err()
            .to_string();
        let expected = format!("type: found {other}; allowed: Q8_0, the type of the packed");
        assert!(error.starts_with(&expected), "{error}");
    }
    assert!(!file.exists());
}

#[test]
fn damaged_packed_matrices_are_errors_that_name_them() {
    let folder = tempfile::tempdir().unwrap();
    let [dir, file] = ["model", "a.gguf"].map(|n| folder.path().join(n));
    packed_model(&dir, &sizes(), scheme(4), &[]);
    let whole = read_tensors(&dir);
    let refused = |change: &dyn Fn(&mut Tensors)| {
        let mut tensors = whole.clone();
        change(&mut tensors);
        write_tensors(&dir, &tensors);
        let error = export_llama(&dir, &file, None).unwrap_err().to_string();
        assert!(!file.exists(), "{error}");
        error
    };
    let part = |part: &str| format!("{UP}{part}");
    type Change<'a> = (&'a dyn Fn(&mut Tensors), &'a str);
    let cases: [Change; 9] = [
        (
            &|all| drop(all.remove(&part("_scale"))),
            "up_proj.weight: weight_scale: missing, expected one beside weight_packed",
        ),
        (
            &|all| drop(all.remove(&part("_shape"))),
            "up_proj.weight: weight_shape: missing",
        ),
        (
            &|all| drop(all.remove(&part("_packed"))),
            "up_proj.weight_shape: is of type I64; allowed: F32, F16, BF16",
        ),
        (
            // 96 rows of 8 words.
            &|all| all.get_mut(&part("_packed")).unwrap().1 = vec![8, 96],
            "up_proj.weight: shape [8, 768]; allowed: [96, 64]",
        ),
        (
            &|all| all.get_mut(&part("_packed")).unwrap().1 = vec![768],
            "up_proj.weight: weight_packed: shape [768], expected [d_out, d_in / 8]",
        ),
        (
            &|all| all.get_mut(&part("_scale")).unwrap().1 = vec![2, 96],
            "up_proj.weight: weight_scale: shape [2, 96], expected [96, 2]",
        ),
        (
            &|all| all.get_mut(&part("_shape")).unwrap().2[0] = 95,
            "up_proj.weight: weight_packed: shape [96, 8], expected [95, 8]",
        ),
        (
            &|all| all.get_mut(&part("_packed")).unwrap().0 = "F32".into(),
            "up_proj.weight: weight_packed: of type F32, expected I32",
        ),
        (
            &|all| {
                let zeros = ("I32".into(), vec![12, 2], vec![0; 96]);
                all.insert(part("_zero_point"), zeros);
            },
            "up_proj.weight: weight_zero_point: present, expected absent for symmetric: true",
        ),
    ];
    for (change, expected) in cases {
        let error = refused(change);
        assert!(error.contains(expected), "{error}");
    }
    let error = refused(&|all| {
        let floats = ("F32".into(), vec![96, 64], vec![0; 4 * 96 * 64]);
        all.insert(UP.into(), floats);
    });
    assert!(
        error.contains("up_proj.weight: is there as floats and packed"),
        "{error}"
    );

    write_tensors(&dir, &whole);
    change_config(&dir, "quantization_config", Value::Null);
    let error = export_llama(&dir, &file, None).unwrap_err().to_string();
    assert!(
        error.contains("is packed; allowed with a quantization_config"),
        "{error}"
    );
    change_config(&dir, "quantization_config", json!({"quant_method": "gptq"}));
    let error = export_llama(&dir, &file, None).unwrap_err().to_string();
    assert!(
        error.contains("config.json: quantization_config: the value is"),
        "{error}"
    );
}

/// A directory of one layer that is packed in 4 bits: two files with their contents, and the tensors.
static SMALL: LazyLock<([(&str, String); 2], Tensors)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let small = LlamaSizes {
        n_layers: 1,
        ..sizes()
    };
    packed_model(folder.path(), &small, scheme(4), &[EMBEDDING]);
    let text = |name| (name, fs::read_to_string(folder.path().join(name)).unwrap());
    let texts = ["config.json", "tokenizer.json"].map(text);
    (texts, read_tensors(folder.path()))
});

/// The same directory with another `model.safetensors`.
fn small_with(write: impl FnOnce(&Path)) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in &SMALL.0 {
        fs::write(folder.path().join(name), text).unwrap();
    }
    write(folder.path());
    folder
}

/// The number of bytes of a tensor, below a limit.
fn bytes_of(dtype: &str, shape: &[u64]) -> Option<usize> {
    let size = match dtype {
        "I64" => 8,
        "F16" | "BF16" => 2,
        _ => 4,
    };
    let bytes = shape
        .iter()
        .try_fold(size, |all: u64, n| all.checked_mul(*n))?;
    (bytes < 1 << 20).then_some(bytes as usize)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_directories_do_not_panic(damage in prop::collection::vec((0usize..6_000, any::<u8>()), 1..4)) {
        let folder = small_with(|dir| {
            write_tensors(dir, &SMALL.1);
            let path = dir.join("model.safetensors");
            let mut bytes = fs::read(&path).unwrap();
            for (at, byte) in damage {
                bytes[at] = byte;
            }
            fs::write(path, bytes).unwrap();
        });
        let file = folder.path().join("a.gguf");
        let exported = export_llama(folder.path(), &file, None);
        prop_assert_eq!(exported.is_ok(), file.exists());
    }

    #[test]
    fn parts_of_any_types_and_shapes_do_not_panic(
        matrix in prop::sample::select(vec![
            "model.layers.0.self_attn.q_proj.weight",
            "model.layers.0.input_layernorm.weight",
            "model.embed_tokens.weight",
        ]),
        parts in prop::collection::vec(
            (
                prop::sample::select(vec!["_packed", "_scale", "_shape", "_zero_point", ""]),
                prop::sample::select(vec!["I32", "I64", "F16", "BF16", "F32"]),
                prop::collection::vec(
                    prop::sample::select(vec![0, 1, 2, 8, 16, 64, 260, 1 << 40, u64::MAX]),
                    0..4,
                ),
                any::<u8>(),
            ),
            1..4,
        ),
    ) {
        let mut tensors = SMALL.1.clone();
        for (part, dtype, shape, byte) in parts {
            let Some(bytes) = bytes_of(dtype, &shape) else { continue };
            let stored = (dtype.to_owned(), shape, vec![byte; bytes]);
            tensors.insert(format!("{matrix}{part}"), stored);
        }
        let folder = small_with(|dir| write_tensors(dir, &tensors));
        let file = folder.path().join("a.gguf");
        let exported = export_llama(folder.path(), &file, None);
        prop_assert_eq!(exported.is_ok(), file.exists());
    }
}
