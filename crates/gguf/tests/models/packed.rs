//! Blocks of Q8_0 and Q4_0 in directories: packed matrices with the same values.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use iiet_compress::kernel::dequantise;
use iiet_compress::{
    PackedMatrix, QuantizationConfig, ScaleType, Scheme, StoredMatrix, StoredTensor,
};
use iiet_gguf::llama::LlamaSizes;
use iiet_gguf::{
    GgufReader, TensorInfo, TensorType, dequantize, export_llama, import_llama, quantize,
    write_gguf,
};
use tempfile::TempDir;

use crate::example::{
    EMBEDDING, OUTPUT, Tensors, UP, model, packed_model, read_config, read_tensors, scheme, sizes,
};

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
fn file_of_types(folder: &TempDir, kind: impl Fn(&str) -> TensorType) -> PathBuf {
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
