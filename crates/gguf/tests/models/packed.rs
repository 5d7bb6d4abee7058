//! Blocks of Q8_0 and Q4_0 in directories: packed matrices with the same values.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use iiet_compress::kernel::dequantise;
use iiet_compress::{
    PackedMatrix, QuantizationConfig, Range, ScaleType, Scheme, StoredMatrix, StoredTensor, round,
};
use iiet_gguf::llama::LlamaSizes;
use iiet_gguf::{
    GgufReader, TensorInfo, TensorType, dequantize, export_llama, import_llama, quantize,
    write_gguf,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::example::{
    Tensors, change_config, model, read_config, read_tensors, sizes, weights, write_tensors,
};

const EMBEDDING: &str = "model.embed_tokens.weight";
const OUTPUT: &str = "lm_head.weight";
const UP: &str = "model.layers.1.mlp.up_proj.weight";

fn scheme(bits: u64) -> Scheme {
    Scheme::new(bits, 32, true).unwrap()
}

/// Writes a file again with other types and bytes of its tensors.
fn rewrite(from: &Path, to: &Path, change: impl Fn(&str, Vec<f32>) -> (TensorType, Vec<u8>)) {
    let mut reader = GgufReader::open(from).unwrap();
    let names: Vec<_> = reader.tensors().iter().map(|t| t.name.clone()).collect();
    let (mut infos, mut all) = (Vec::new(), Vec::new());
    for name in names {
        let shape = reader.tensor(&name).unwrap().shape.clone();
        let (kind, bytes) = change(&name, reader.read_f32(&name).unwrap());
        infos.push(TensorInfo::new(name, shape, kind).unwrap());
        all.push(bytes);
    }
    write_gguf(to, reader.metadata(), &infos, |i| Ok(all[i].clone())).unwrap();
}

/// A file whose matrices have the types that `kind` gives.
fn file_of_types(folder: &TempDir, kind: impl Fn(&str) -> TensorType) -> std::path::PathBuf {
    let [dir, plain, file] = ["model", "plain.gguf", "a.gguf"].map(|n| folder.path().join(n));
    model(&dir, &sizes());
    export_llama(&dir, &plain, None).unwrap();
    rewrite(&plain, &file, |name, values| {
        let kind = match name.contains("norm") || name.contains("rope") {
            true => TensorType::F32,
            false => kind(name),
        };
        (kind, quantize(kind, &values, name).unwrap())
    });
    file
}

/// The numbers of all weights of a directory, bit for bit.
fn values(dir: &Path) -> BTreeMap<String, Vec<u32>> {
    let (tensors, config) = (read_tensors(dir), read_config(dir));
    let mut all = BTreeMap::new();
    for (name, (dtype, _, bytes)) in &tensors {
        let values = match dtype.as_str() {
            "F32" => dequantize(TensorType::F32, bytes),
            "F16" if !name.ends_with("_scale") => dequantize(TensorType::F16, bytes),
            "I32" => {
                let quantised = QuantizationConfig::from_json(&config["quantization_config"]);
                let weight = name.strip_suffix("_packed").unwrap();
                let matrix = matrix(&tensors, weight, quantised.unwrap().scheme);
                let view = matrix.view();
                let mut values = vec![0.0; view.d_out() * view.d_in()];
                dequantise(&mut values, &view, 0..view.d_out()).unwrap();
                values
            }
            _ => continue,
        };
        let bits = values.iter().map(|x| x.to_bits()).collect();
        all.insert(name.trim_end_matches("_packed").to_owned(), bits);
    }
    all
}

fn matrix(tensors: &Tensors, weight: &str, scheme: Scheme) -> PackedMatrix {
    let part = |part: &str| {
        let (_, shape, bytes) = &tensors[&format!("{weight}{part}")];
        let shape: Vec<usize> = shape.iter().map(|n| *n as usize).collect();
        (shape, bytes.as_slice())
    };
    let [packed, scale, shape] = ["_packed", "_scale", "_shape"].map(part);
    let tensor = |(shape, bytes)| StoredTensor { shape, bytes };
    let stored = StoredMatrix {
        packed: tensor((&packed.0, packed.1)),
        scale: tensor((&scale.0, scale.1)),
        scale_type: ScaleType::F16,
        zero_point: None,
        shape: tensor((&shape.0, shape.1)),
    };
    stored.read(scheme).unwrap()
}

/// A directory whose matrices are rounded and packed, all but those that `keep` names.
fn packed_model(dir: &Path, sizes: &LlamaSizes, scheme: Scheme, keep: &[&str]) {
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
        activation_order: false,
        embeddings: !keep.contains(&EMBEDDING),
        ignore: modules.collect(),
    };
    change_config(dir, "quantization_config", config.to_json());
}

#[test]
fn blocks_are_the_same_bytes_after_a_directory() {
    let folder = tempfile::tempdir().unwrap();
    let [dir, file, back, again] =
        ["model", "a.gguf", "back", "b.gguf"].map(|n| folder.path().join(n));
    for (kind, bits) in [(TensorType::Q8_0, 8), (TensorType::Q4_0, 4)] {
        for tie_embeddings in [false, true] {
            let sizes = LlamaSizes {
                tie_embeddings,
                ..sizes()
            };
            model(&dir, &sizes);
            export_llama(&dir, &file, Some(kind)).unwrap();
            import_llama(&file, &back).unwrap();
            let found = QuantizationConfig::from_json(&read_config(&back)["quantization_config"]);
            let found = found.unwrap();
            assert_eq!((found.scheme, found.embeddings), (scheme(bits), true));
            assert_eq!(found.ignore.is_empty(), !tie_embeddings);
            for asked in [None, Some(kind)] {
                export_llama(&back, &again, asked).unwrap();
                assert!(
                    fs::read(&file).unwrap() == fs::read(&again).unwrap(),
                    "{kind}"
                );
            }
            fs::remove_dir_all(&back).unwrap();
        }
    }
}

#[test]
fn packed_matrices_are_the_same_after_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let [dir, file, back] = ["model", "a.gguf", "back"].map(|n| folder.path().join(n));
    for (bits, kind) in [(8, TensorType::Q8_0), (4, TensorType::Q4_0)] {
        for keep in [&[][..], &[EMBEDDING], &[EMBEDDING, OUTPUT, UP]] {
            packed_model(&dir, &sizes(), scheme(bits), keep);
            export_llama(&dir, &file, None).unwrap();
            let reader = GgufReader::open(&file).unwrap();
            let kind_of = |name: &str| reader.tensor(name).unwrap().kind;
            assert_eq!(kind_of("blk.0.attn_q.weight"), kind);
            let embedding = if keep.is_empty() {
                kind
            } else {
                TensorType::F32
            };
            assert_eq!(kind_of("token_embd.weight"), embedding);
            import_llama(&file, &back).unwrap();
            assert!(
                read_tensors(&back) == read_tensors(&dir),
                "{bits} bits, {keep:?}"
            );
            let [found, expected] = [&back, &dir].map(|dir| read_config(dir));
            assert_eq!(
                found["quantization_config"],
                expected["quantization_config"]
            );
            fs::remove_dir_all(&back).unwrap();
        }
    }
}

#[test]
fn the_values_are_those_of_the_same_file_in_f32() {
    let folder = tempfile::tempdir().unwrap();
    let [plain, back, floats] = ["b.gguf", "back", "floats"].map(|n| folder.path().join(n));
    for kind in [TensorType::Q8_0, TensorType::Q4_0] {
        let file = file_of_types(&folder, |_| kind);
        rewrite(&file, &plain, |name, values| {
            let kind = TensorType::F32;
            (kind, quantize(kind, &values, name).unwrap())
        });
        import_llama(&file, &back).unwrap();
        import_llama(&plain, &floats).unwrap();
        assert!(read_config(&floats)["quantization_config"].is_null());
        assert!(values(&back) == values(&floats), "{kind}");
        for dir in [&back, &floats] {
            fs::remove_dir_all(dir).unwrap();
        }
    }
}

#[test]
fn matrices_of_other_types_are_floats_beside_packed_ones() {
    use TensorType::{F16, F32, Q4_0, Q8_0};
    // The types of the embedding, the output projection, one matrix of a layer and the others, then what becomes of
    // the first three.
    for (types, stored) in [
        ([F16, F32, Q8_0, Q8_0], ["F16", "F32", "I32"]),
        ([Q4_0, Q8_0, F16, Q8_0], ["F32", "I32", "F16"]),
        ([Q4_0, Q4_0, F32, Q4_0], ["I32", "I32", "F32"]),
        ([Q4_0, Q8_0, Q4_0, Q8_0], ["F32", "F32", "F32"]),
        ([Q8_0, Q8_0, F16, F32], ["F32", "F32", "F16"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = file_of_types(&folder, |name| match name {
            "token_embd.weight" => types[0],
            "output.weight" => types[1],
            "blk.1.ffn_up.weight" => types[2],
            _ => types[3],
        });
        let back = folder.path().join("back");
        import_llama(&file, &back).unwrap();
        let (tensors, config) = (read_tensors(&back), read_config(&back));
        let found = [EMBEDDING, OUTPUT, UP].map(|name| {
            let tensor = tensors.get(name);
            let tensor = tensor.unwrap_or_else(|| &tensors[&format!("{name}_packed")]);
            tensor.0.as_str()
        });
        assert_eq!(found, stored, "{types:?}");
        let quantised = &config["quantization_config"];
        let packed = tensors.values().any(|(dtype, ..)| dtype == "I32");
        assert_eq!(quantised.is_object(), packed, "{types:?}");
        if packed {
            let quantised = QuantizationConfig::from_json(quantised).unwrap();
            assert_eq!(quantised.embeddings, stored[0] == "I32");
            let modules = [
                (stored[1], "lm_head"),
                (stored[2], "model.layers.1.mlp.up_proj"),
            ];
            let floats = modules.iter().filter(|(stored, _)| *stored != "I32");
            let expected: Vec<&str> = floats.map(|(_, module)| *module).collect();
            assert_eq!(quantised.ignore, expected);
        }
    }
}

#[test]
fn other_blocks_become_floats_and_all_matrices_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let [dir, plain, file, back] =
        ["model", "plain.gguf", "a.gguf", "back"].map(|n| folder.path().join(n));
    let sizes = LlamaSizes {
        d_ff: 256,
        ..sizes()
    };
    model(&dir, &sizes);
    export_llama(&dir, &plain, Some(TensorType::Q8_0)).unwrap();
    rewrite(&plain, &file, |name, values| {
        if name.ends_with("ffn_down.weight") {
            let bytes = values.len() / 256 * 210;
            return (TensorType::Q6K, vec![0; bytes]);
        }
        let kind = match name.contains("norm") || name.contains("rope") {
            true => TensorType::F32,
            false => TensorType::Q8_0,
        };
        (kind, quantize(kind, &values, name).unwrap())
    });
    import_llama(&file, &back).unwrap();
    assert!(read_config(&back)["quantization_config"].is_null());
    assert!(
        read_tensors(&back)
            .values()
            .all(|(dtype, ..)| dtype == "F32")
    );
}

#[test]
fn scales_that_are_not_finite_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let file = file_of_types(&folder, |_| TensorType::Q8_0);
    let [damaged, back] = ["b.gguf", "back"].map(|n| folder.path().join(n));
    let mut reader = GgufReader::open(&file).unwrap();
    let blocks = reader.read("blk.1.attn_v.weight").unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes
        .windows(blocks.len())
        .position(|found| found == blocks);
    // The scale of the fourth block is infinite.
    bytes[at.unwrap() + 3 * 34..][..2].copy_from_slice(&[0x00, 0x7c]);
    fs::write(&damaged, bytes).unwrap();
    let error = import_llama(&damaged, &back).unwrap_err().to_string();
    let expected = "tensor blk.1.attn_v.weight: scale 3: inf, allowed is a finite number";
    assert!(error.ends_with(expected), "{error}");
    assert!(!back.exists());
}

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

/// A directory of one layer that is packed in 4 bits.
static SMALL: LazyLock<(TempDir, Tensors)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let small = LlamaSizes {
        n_layers: 1,
        ..sizes()
    };
    packed_model(folder.path(), &small, scheme(4), &[EMBEDDING]);
    let tensors = read_tensors(folder.path());
    (folder, tensors)
});

/// The same directory with another `model.safetensors`.
fn small_with(write: impl FnOnce(&Path)) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json"] {
        fs::copy(SMALL.0.path().join(name), folder.path().join(name)).unwrap();
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
