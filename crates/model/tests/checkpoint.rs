//! Model directories: saved models can be loaded, and mismatches are errors with the tensors'
//! names.

use std::fs;
use std::path::Path;

use burn::tensor::{Device, Int, Tensor};
use iiet_model::{LanguageModel, ModelConfig, ModelError, Precision, SaveOptions, load, save};

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../conformance/golden/models")
        .join(name)
}

fn logits(model: &LanguageModel) -> Vec<f32> {
    let ids =
        Tensor::<2, Int>::from_data([[5, 17, 99, 0, 3], [1, 2, 3, 4, 100]], &Device::default());
    model.forward(ids).try_into_vec_as::<f32>().unwrap()
}

fn copy(from: &Path, to: &Path) {
    for name in ["config.json", "model.safetensors"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

#[test]
fn saved_models_load_unchanged() {
    let device = Device::default();
    for case in ["iiet-r3-gqa-untied", "pcformer-rk4", "e-iiet-3-1-0"] {
        let (model, config) = load(&golden(case), &device).unwrap();
        let dir = tempfile::tempdir().unwrap();
        save(&model, dir.path(), &SaveOptions::default()).unwrap();
        let (again, config_again) = load(dir.path(), &device).unwrap();
        assert_eq!(config, config_again);
        assert_eq!(logits(&model), logits(&again), "{case}");
    }
}

#[test]
fn shards_hold_the_same_model() {
    let device = Device::default();
    let (model, _) = load(&golden("iiet-r3-gqa-untied"), &device).unwrap();
    let dir = tempfile::tempdir().unwrap();
    // A single file first, which the shards must replace.
    save(&model, dir.path(), &SaveOptions::default()).unwrap();
    let options = SaveOptions {
        max_shard_bytes: 20_000,
        ..SaveOptions::default()
    };
    save(&model, dir.path(), &options).unwrap();
    assert!(!dir.path().join("model.safetensors").exists());
    assert!(dir.path().join("model-00001-of-00008.safetensors").exists());
    let (again, _) = load(dir.path(), &device).unwrap();
    assert_eq!(logits(&model), logits(&again));

    fs::remove_file(dir.path().join("model-00002-of-00008.safetensors")).unwrap();
    let error = load(dir.path(), &device).unwrap_err().to_string();
    assert!(
        error.contains("model-00002-of-00008.safetensors"),
        "{error}"
    );

    let index = dir.path().join("model.safetensors.index.json");
    fs::write(
        &index,
        r#"{"weight_map": {"model.norm.weight": "../secret.safetensors"}}"#,
    )
    .unwrap();
    let error = load(dir.path(), &device).unwrap_err().to_string();
    assert!(error.contains("delete the manifest"), "{error}");
    fs::remove_file(dir.path().join("iiet-manifest.json")).unwrap();
    let error = load(dir.path(), &device).unwrap_err().to_string();
    assert!(
        error.contains("files in the directory of the index"),
        "{error}"
    );
}

#[test]
fn half_precision_rounds_once() {
    let device = Device::default();
    let (model, _) = load(&golden("iiet-r3-gqa-untied"), &device).unwrap();
    let exact = logits(&model);
    for (stored, tolerance) in [(Precision::Bf16, 0.1), (Precision::F16, 0.02)] {
        let dir = tempfile::tempdir().unwrap();
        let options = SaveOptions {
            stored,
            ..SaveOptions::default()
        };
        save(&model, dir.path(), &options).unwrap();
        let (rounded, _) = load(dir.path(), &device).unwrap();
        let found = logits(&rounded);
        let difference = exact
            .iter()
            .zip(&found)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(
            difference > 0.0 && difference < tolerance,
            "{stored:?}: {difference}"
        );
        // Rounded values are exact in the same dtype.
        save(&rounded, dir.path(), &options).unwrap();
        let (again, _) = load(dir.path(), &device).unwrap();
        assert_eq!(logits(&again), found);
    }
}

#[test]
fn every_mismatch_is_listed_by_name() {
    // The weights of one model under the configuration of another.
    let dir = tempfile::tempdir().unwrap();
    copy(&golden("iiet-r3-gqa-untied"), dir.path());
    fs::copy(
        golden("euler-gqa-untied/config.json"),
        dir.path().join("config.json"),
    )
    .unwrap();
    let error = load(dir.path(), &Device::default()).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("surplus   model.history.weight_c"),
        "{message}"
    );

    copy(&golden("euler-gqa-untied"), dir.path());
    let config = fs::read_to_string(dir.path().join("config.json")).unwrap();
    let config = config
        .replace("\"explicit_euler\"", "\"iterative_implicit_euler\"")
        .replace("\"intermediate_size\": 56", "\"intermediate_size\": 60")
        .replace("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2");
    fs::write(dir.path().join("config.json"), config).unwrap();
    let error = load(dir.path(), &Device::default()).unwrap_err();
    let message = error.to_string();
    for expected in [
        "missing   model.history.rouge_predictions_norm.1.bias [32]",
        "missing   model.history.weight [3, 3]",
        "surplus   model.layers.2.mlp.up_proj.weight",
        "misshapen model.layers.0.mlp.down_proj.weight [32, 56], expected [32, 60]",
    ] {
        assert!(message.contains(expected), "{message}");
    }
    assert!(matches!(error, ModelError::Tensors { faults, .. } if faults.len() > 10));
}

#[test]
fn damaged_files_are_errors() {
    let device = Device::default();
    let dir = tempfile::tempdir().unwrap();
    let error = load(dir.path(), &device).unwrap_err().to_string();
    assert!(error.contains("config.json"), "{error}");

    copy(&golden("rk4"), dir.path());
    let weights = dir.path().join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    for length in [0, 7, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&weights, &bytes[..length]).unwrap();
        let error = load(dir.path(), &device).unwrap_err().to_string();
        assert!(
            error.contains("model.safetensors"),
            "{length} bytes: {error}"
        );
    }
    fs::remove_file(&weights).unwrap();
    let error = load(dir.path(), &device).unwrap_err().to_string();
    assert!(error.contains("expected model.safetensors"), "{error}");

    fs::write(
        dir.path().join("config.json"),
        "{\"vocab_size\": 5,\n \"hidden_size\": }",
    )
    .unwrap();
    let error = load(dir.path(), &device).unwrap_err().to_string();
    assert!(
        error.contains("config.json") && error.contains("line 2"),
        "{error}"
    );
}

#[test]
fn initial_weights_depend_only_on_the_seed_and_the_name() {
    let device = Device::default();
    let text = fs::read_to_string(golden("iiet-r3-gqa-untied/config.json")).unwrap();
    let config = ModelConfig::from_json(&text, Path::new("config.json")).unwrap();
    let fresh = |seed| logits(&LanguageModel::init(&config, seed, &device).unwrap());
    assert_eq!(fresh(1), fresh(1));
    assert_ne!(fresh(1), fresh(2));

    // A shallower model shares its matrices with the deeper one.
    let shallow = ModelConfig {
        n_layers: 1,
        solver: iiet_ode::SolverConfig::default(),
        ..config.clone()
    };
    let deep: LanguageModel = LanguageModel::init(&config, 1, &device).unwrap();
    let shallow = LanguageModel::init(&shallow, 1, &device).unwrap();
    let weight = |model: &LanguageModel| model.model.layers[0].mlp.up_proj.matrix().into_data();
    weight(&deep).assert_eq(&weight(&shallow), true);
    let deviation = deep
        .model
        .embed_tokens
        .matrix()
        .square()
        .mean()
        .sqrt()
        .into_scalar::<f32>();
    assert!((deviation - 0.02).abs() < 0.001, "{deviation}");
}
