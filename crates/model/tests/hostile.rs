//! Untrusted model directories: loaded, or rejected with an error that names the problem. Loading
//! never panics and never takes more memory than the size of the files.

use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Param;
use burn::tensor::{Device, Tensor};
use iiet_files::{FilesError, MANIFEST};
use iiet_model::{
    Cost, LanguageModel, ModelConfig, ModelError, ParameterMapper, Precision, Role, SaveOptions,
    load, load_config, load_in, map_parameters, parse_safetensors, save,
};
use iiet_ode::Options;
use proptest::prelude::*;
use proptest::sample::Index;
use tempfile::TempDir;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../conformance/golden/models")
        .join(name)
}

/// A safetensors file with the given header, valid or not.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn refusal(bytes: &[u8]) -> String {
    let error = parse_safetensors(Path::new("w.safetensors"), bytes).unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with("w.safetensors: "), "{message}");
    message
}

#[test]
fn invalid_headers_are_errors() {
    let tensor = |dtype: &str, shape: &str, from: u64, to: u64| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let two = |a: String, b: String| format!(r#"{{"a":{a},"b":{b}}}"#);
    let whole = tensor("F32", "[2]", 0, 8);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (header, data, expected) in [
        // Overlap, hole, trailing bytes, beyond the end.
        (
            two(whole.clone(), tensor("F32", "[2]", 4, 12)),
            12,
            "invalid offset for tensor `b`",
        ),
        (
            two(whole.clone(), tensor("F32", "[2]", 12, 20)),
            20,
            "invalid offset for tensor `b`",
        ),
        (
            two(whole.clone(), tensor("F32", "[2]", 8, 16)),
            17,
            "not fully covered",
        ),
        (
            two(whole.clone(), tensor("F32", "[2]", 8, 16)),
            15,
            "b ends at byte 16, but the data at 15",
        ),
        (
            format!(r#"{{"a":{}}}"#, tensor("F32", "[2]", 8, 0)),
            8,
            "invalid offset",
        ),
        // Shapes: another size; overflow of the product, of the bytes, of an integer.
        (
            format!(r#"{{"a":{}}}"#, tensor("F32", "[3]", 0, 8)),
            8,
            "invalid shape",
        ),
        (
            format!(
                r#"{{"a":{}}}"#,
                tensor("F32", "[4294967296,4294967296]", 0, 8)
            ),
            8,
            "overflow",
        ),
        (
            format!(
                r#"{{"a":{}}}"#,
                tensor("F64", "[2305843009213693952]", 0, 8)
            ),
            8,
            "overflow",
        ),
        (
            format!(
                r#"{{"a":{}}}"#,
                tensor("F32", "[99999999999999999999]", 0, 8)
            ),
            8,
            "column",
        ),
        (
            format!(r#"{{"a":{}}}"#, tensor("F32", "[-1]", 0, 8)),
            8,
            "invalid value",
        ),
        (
            format!(r#"{{"a":{}}}"#, tensor("F32", "[2]", 0, u64::MAX)),
            8,
            "ends at byte",
        ),
        // Types, fields and keys.
        (
            format!(r#"{{"a":{}}}"#, tensor("F33", "[2]", 0, 8)),
            8,
            "unknown variant `F33`",
        ),
        (
            two(whole.clone(), whole.clone()).replace("\"b\"", "\"a\""),
            8,
            "duplicate key \"a\"",
        ),
        (
            r#"{"__metadata__":{"a":"1","a":"2"}}"#.into(),
            0,
            "duplicate key \"a\"",
        ),
        (r#"{"__metadata__":{"a":1}}"#.into(), 0, "invalid type"),
        (
            r#"{"a":{"dtype":"F32","dtype":"F16","shape":[2],"data_offsets":[0,8]}}"#.into(),
            8,
            "duplicate field `dtype`",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1}}"#.into(),
            8,
            "unknown field `more`",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[2]}}"#.into(),
            8,
            "missing field",
        ),
        // Nesting, at valid and at invalid positions.
        (deep.clone(), 0, "expected an object of tensors"),
        (format!(r#"{{"a":{deep}}}"#), 0, "column"),
        (
            format!(r#"{{"__metadata__":{{"a":{deep}}}}}"#),
            0,
            "expected a string",
        ),
        (format!(r#"{{"a":{{"shape":{deep}}}}}"#), 0, "column"),
        (format!(r#"{{"a":{{"more":{deep}}}}}"#), 0, "unknown field"),
        ("[]".into(), 0, "expected an object of tensors"),
        ("{} {}".into(), 0, "trailing characters"),
        ("".into(), 0, "EOF"),
    ] {
        let message = refusal(&file(&header, data));
        let shown: String = header.chars().take(120).collect();
        assert!(message.contains(expected), "{shown}: {message}");
    }
    for (bytes, expected) in [
        (vec![0; 7], "7 bytes; at least 8"),
        (
            9_u64.to_le_bytes().to_vec(),
            "the header's length is 9, but 0 bytes follow",
        ),
        (
            100_000_001_u64.to_le_bytes().to_vec(),
            "allowed: at most 100000000",
        ),
        (
            u64::MAX.to_le_bytes().to_vec(),
            "allowed: at most 100000000",
        ),
        (
            [3_u64.to_le_bytes().as_slice(), b"{\xff}"].concat(),
            "w.safetensors",
        ),
    ] {
        let message = refusal(&bytes);
        assert!(message.contains(expected), "{message}");
    }
}

/// A saved directory, optionally without its manifest like those of other tools.
fn directory(manifest: bool) -> TempDir {
    let device = Device::default();
    let (model, _) = load(&golden("e-iiet-3-1-0"), &device).unwrap();
    let dir = tempfile::tempdir().unwrap();
    save(&model, dir.path(), &SaveOptions::default()).unwrap();
    if !manifest {
        fs::remove_file(dir.path().join(MANIFEST)).unwrap();
    }
    dir
}

#[test]
fn a_configuration_larger_than_its_weights_takes_no_memory() {
    let dir = directory(false);
    let path = dir.path().join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    for (from, to, expected) in [
        (
            "\"num_hidden_layers\": 3",
            "\"num_hidden_layers\": 16384",
            "num_hidden_layers is 16384 in config.json, but the weights",
        ),
        (
            "\"num_hidden_layers\": 3",
            "\"num_hidden_layers\": 16385",
            "allowed: 1 to 16384",
        ),
        (
            "\"hidden_size\": 32",
            "\"hidden_size\": 1048576",
            "misshapen",
        ),
        (
            "\"vocab_size\": 101",
            "\"vocab_size\": 1048576",
            "misshapen",
        ),
        (
            "\"intermediate_size\": 56",
            "\"intermediate_size\": 1048576",
            "misshapen",
        ),
    ] {
        let changed = text.replace(from, to).replace(
            "\"iterations\": [\n    3,\n    1,\n    0\n  ]",
            "\"iterations\": 1",
        );
        assert_ne!(changed, text);
        fs::write(&path, changed).unwrap();
        let error = load(dir.path(), &Device::default()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_manifest_names_what_differs() {
    let device = Device::default();
    let dir = directory(true);
    let path = |name: &str| dir.path().join(name);
    // Files that are not in the manifest are ignored.
    fs::write(path("README.md"), "mine").unwrap();
    load(dir.path(), &device).unwrap();
    // A weight with one bit flipped has a valid shape and length.
    let weights = fs::read(path("model.safetensors")).unwrap();
    let mut changed = weights.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(path("model.safetensors"), changed).unwrap();
    let error = load(dir.path(), &device).unwrap_err();
    assert!(
        matches!(error, ModelError::Files(FilesError::Differs { .. })),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("model.safetensors: damaged or changed"),
        "{error}"
    );
    fs::write(path("model.safetensors"), weights).unwrap();
    // A configuration edited by hand.
    let config = fs::read_to_string(path("config.json")).unwrap();
    fs::write(path("config.json"), config.replace("10000.0", "20000.0")).unwrap();
    for error in [
        load(dir.path(), &device).map(drop).unwrap_err(),
        load_config(dir.path()).map(drop).unwrap_err(),
    ] {
        let message = error.to_string();
        assert!(
            message.contains("config.json: damaged or changed"),
            "{message}"
        );
        assert!(message.contains("delete the manifest"), "{message}");
    }
    fs::remove_file(path(MANIFEST)).unwrap();
    load(dir.path(), &device).unwrap();
    // A write that was interrupted between two files.
    fs::write(
        path(MANIFEST),
        r#"{"format": 1, "incomplete": true, "files": {}}"#,
    )
    .unwrap();
    let error = load(dir.path(), &device).unwrap_err().to_string();
    assert!(error.contains("interrupted"), "{error}");
    for (manifest, expected) in [
        (r#"{"format": 2, "files": {}}"#, "format is 2; allowed: 1"),
        (
            r#"{"format": 1, "files": {"../a": {"bytes": 1, "blake3": ""}}}"#,
            "files in the same directory",
        ),
        (r#"{"format": 1, "files": {}, "more": 1}"#, "unknown field"),
        (r#"{"format": 1, "files": {}}"#, "records no such file"),
        ("{", "EOF"),
    ] {
        fs::write(path(MANIFEST), manifest).unwrap();
        let error = load(dir.path(), &device).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// A golden directory whose last weight is this number.
fn with_last_weight(value: f32) -> TempDir {
    let dir = directory(false);
    let path = dir.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    // In the order of names, `model.norm.weight` is the last tensor.
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&value.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    dir
}

#[test]
fn non_finite_weights_are_errors_with_their_name() {
    let device = Device::default();
    for (value, shown) in [
        (f32::NAN, "NaN"),
        (f32::INFINITY, "inf"),
        (f32::NEG_INFINITY, "-inf"),
    ] {
        let dir = with_last_weight(value);
        let error = load(dir.path(), &device).unwrap_err().to_string();
        let expected = format!(
            "{}: model.norm.weight contains {shown} at element 31, which is not finite in \
             f32",
            dir.path().display()
        );
        assert_eq!(error, expected);
    }
}

#[test]
fn weights_outside_the_range_of_a_precision_are_errors() {
    let device = Device::default();
    let dir = directory(false);
    let path = dir.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    // In the order of names, the embedding is the first tensor.
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[header..header + 4].copy_from_slice(&65520f32.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let (model, _) = load(dir.path(), &device).unwrap();
    let error = load_in(Precision::F16, dir.path(), &device).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains(
            "model.embed_tokens.weight contains 65520 at element 0, which is not finite in f16"
        ),
        "{message}"
    );
    let out = tempfile::tempdir().unwrap();
    let options = SaveOptions {
        stored: Precision::F16,
        ..SaveOptions::default()
    };
    let message = save(&model, out.path(), &options).unwrap_err().to_string();
    assert!(
        message.contains("model.embed_tokens.weight contains 65520, which is not finite in f16"),
        "{message}"
    );
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
}

/// Sets every parameter to one number.
struct Constant(f32);

impl ParameterMapper for Constant {
    fn map<const D: usize>(
        &mut self,
        _name: &str,
        _role: Role,
        parameter: Param<Tensor<D>>,
    ) -> Param<Tensor<D>> {
        parameter.map(|tensor| tensor.full_like(self.0))
    }
}

#[test]
fn non_finite_weights_are_not_written() {
    let device = Device::default();
    let dir = directory(true);
    let bytes = fs::read(dir.path().join("model.safetensors")).unwrap();
    for value in [f32::NAN, f32::INFINITY] {
        let (model, _) = load(&golden("e-iiet-3-1-0"), &device).unwrap();
        let model = map_parameters(model, &mut Constant(value));
        let error = save(&model, dir.path(), &SaveOptions::default()).unwrap_err();
        assert!(matches!(error, ModelError::NotFinite { .. }), "{error}");
        assert_eq!(
            fs::read(dir.path().join("model.safetensors")).unwrap(),
            bytes
        );
        load(dir.path(), &device).unwrap();
    }
}

#[test]
fn a_tensor_in_two_shards_or_not_in_the_listed_one_is_an_error() {
    let device = Device::default();
    let (model, _) = load(&golden("e-iiet-3-1-0"), &device).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = SaveOptions {
        max_shard_bytes: 20_000,
        ..SaveOptions::default()
    };
    save(&model, dir.path(), &options).unwrap();
    fs::remove_file(dir.path().join(MANIFEST)).unwrap();
    load(dir.path(), &device).unwrap();
    let path = dir.path().join("model.safetensors.index.json");
    let text = fs::read_to_string(&path).unwrap();
    let index: serde_json::Value = serde_json::from_str(&text).unwrap();
    let (name, file) = index["weight_map"]
        .as_object()
        .unwrap()
        .iter()
        .next()
        .unwrap();
    let file = file.as_str().unwrap();
    let mut files = index["weight_map"].as_object().unwrap().values();
    let other = files
        .find(|other| **other != file)
        .unwrap()
        .as_str()
        .unwrap();
    let moved = text.replace(
        &format!("\"{name}\": \"{file}\""),
        &format!("\"{name}\": \"{other}\""),
    );
    assert_ne!(moved, text);
    fs::write(&path, moved).unwrap();
    let error = load(dir.path(), &device).unwrap_err().to_string();
    let expected = format!("weight_map lists {name} in {other}, but it is in {file}");
    assert!(error.contains(&expected), "{error}");
    fs::write(&path, &text).unwrap();
    // The same tensors again under another shard's name.
    fs::copy(dir.path().join(file), dir.path().join("more.safetensors")).unwrap();
    let more = text.replace(
        "\"weight_map\": {",
        "\"weight_map\": {\"x\": \"more.safetensors\",",
    );
    fs::write(&path, more).unwrap();
    let error = load(dir.path(), &device).unwrap_err().to_string();
    assert!(error.contains("is in both"), "{error}");
    assert!(
        error.contains("more.safetensors; allowed: in one of them"),
        "{error}"
    );
}

#[test]
fn a_configuration_alone_takes_no_memory_for_its_history() {
    let text = fs::read_to_string(golden("e-iiet-3-1-0").join("config.json")).unwrap();
    let mut config: ModelConfig = ModelConfig::from_json(&text, Path::new("config.json")).unwrap();
    config.n_layers = 16384;
    let one = iiet_ode::IterationSchedule::Uniform(1);
    config.solver = config.solver.with_iterations(one);
    let model: LanguageModel = LanguageModel::empty(&config, &Device::default()).unwrap();
    // Two matrices of 16385 x 16385 would be 2 GB.
    let cost = Cost::of(&model);
    assert!(cost.parameters > 2 * 16385 * 16385);
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .unwrap();
        let kibibytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(kibibytes < 1_500_000, "{line}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// With a manifest, no damaged file gives a model.
    #[test]
    fn every_flipped_bit_or_truncation_is_detected(which in 0_usize..3, at in any::<Index>(), bit in 0_u32..9) {
        let dir = directory(true);
        let path = dir.path().join(["config.json", "model.safetensors", MANIFEST][which]);
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        match bit {
            8 => bytes.truncate(at),
            _ => bytes[at] ^= 1 << bit,
        }
        // The newline after the last brace is the only byte without meaning.
        prop_assume!(!(which == 2 && bit == 8 && at + 1 == fs::metadata(&path).unwrap().len() as usize));
        fs::write(&path, bytes).unwrap();
        let error = load(dir.path(), &Device::default()).unwrap_err().to_string();
        // A manifest whose list of files is damaged leads to a file of any name, in the same folder.
        let files = [".json", ".safetensors", ".py"].map(String::from);
        let folder = dir.path().display().to_string();
        let named = files.iter().chain([&folder]).any(|name| error.contains(name));
        prop_assert!(named, "{}", error);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Without a manifest, damage gives an error or another value, and never a panic.
    #[test]
    fn arbitrary_weight_files_do_not_panic(at in any::<Index>(), value in any::<u64>(), cut in any::<bool>()) {
        let bytes = file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[1,2],"data_offsets":[8,12]}}"#, 12);
        let mut changed = bytes.clone();
        let at = at.index(bytes.len() - 8);
        match cut {
            true => changed.truncate(at),
            false => changed[at..at + 8].copy_from_slice(&value.to_le_bytes()),
        }
        if let Ok(file) = parse_safetensors(Path::new("w"), &changed) {
            prop_assert!(!cut);
            for (_, view) in file.iter() {
                prop_assert!(view.data().len() <= 12);
            }
        }
    }

    #[test]
    fn arbitrary_headers_do_not_panic(header in "[{}\\[\\]\":,0-9a-z_A-F ]{0,80}", data in 0_usize..20) {
        let _ = parse_safetensors(Path::new("w"), &file(&header, data));
    }

    #[test]
    fn arbitrary_configurations_do_not_panic(at in any::<Index>(), bit in 0_u32..8, number in any::<i64>(), cut in any::<bool>()) {
        static TEXT: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
            fs::read_to_string(golden("e-iiet-3-1-0").join("config.json")).unwrap()
        });
        let mut bytes = TEXT.clone().into_bytes();
        let place = at.index(bytes.len());
        match cut {
            true => bytes.truncate(place),
            false => bytes[place] ^= 1 << bit,
        }
        // Replace a number in the file.
        let numbers: Vec<_> = TEXT.match_indices(|c: char| c.is_ascii_digit()).collect();
        let (start, digit) = numbers[at.index(numbers.len())];
        let other = format!("{}{number}{}", &TEXT[..start], &TEXT[start + digit.len()..]);
        for text in [String::from_utf8_lossy(&bytes).into_owned(), other] {
            if let Err(error) = <ModelConfig>::from_json(&text, Path::new("config.json")) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}
