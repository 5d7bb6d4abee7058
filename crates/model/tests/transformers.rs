//! The Python files by which `transformers` loads a model directory: written, recorded, and complete.
//!
//! What they compute is compared by `benches/peers/transformers_iiet.py`, which needs Python.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor};
use iiet_files::{FileRecord, Manifest};
use iiet_model::{LanguageModel, SaveOptions, load, save};
use iiet_ode::{Options, SolverConfig};
use serde_json::Value;

const CONFIGURATION: &str = include_str!("../transformers/configuration_iiet.py");
const MODELING: &str = include_str!("../transformers/modeling_iiet.py");

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../conformance/golden/models")
        .join(name)
}

fn logits(model: &LanguageModel) -> Vec<f32> {
    let ids = Tensor::<2, Int>::from_data([[5, 17, 99, 0, 3]], &Device::default());
    model.forward(ids).try_into_vec_as::<f32>().unwrap()
}

/// The entries of a Python dictionary that has one entry a line: `"name": value,`.
fn entries<'a>(text: &'a str, dictionary: &str) -> Vec<(&'a str, &'a str)> {
    let (_, text) = text
        .split_once(&format!("\n{dictionary} = {{\n"))
        .unwrap_or_else(|| panic!("there is no {dictionary}"));
    let (body, _) = text.split_once("\n}\n").unwrap();
    let entries = body.lines().map(|line| line.split_once(": ").unwrap());
    entries
        .map(|(name, value)| (name.trim().trim_matches('"'), value.trim_end_matches(',')))
        .collect()
}

#[test]
fn the_python_files_have_every_solver() {
    for (text, dictionary) in [(CONFIGURATION, "OPTIONS"), (MODELING, "SOLVERS")] {
        let found: Vec<&str> = entries(text, dictionary).iter().map(|(n, _)| *n).collect();
        assert_eq!(found, SolverConfig::NAMES, "{dictionary}");
    }
}

/// Those that are written to `config.json` always, and those that are only where they differ from their
/// defaults. The Python file refuses what it does not know.
#[test]
fn the_python_file_has_every_option_of_every_solver() {
    for (solver, listed) in entries(CONFIGURATION, "OPTIONS") {
        let solver_config = SolverConfig::named(solver).unwrap();
        for key in solver_config.omitted() {
            assert!(
                listed.contains(&format!("\"{key}\"")),
                "{solver} has the option {key}"
            );
        }
        let options = serde_json::to_value(solver_config).unwrap();
        for key in options
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| *key != "name")
        {
            assert!(
                listed.contains(&format!("\"{key}\"")),
                "{solver} has the option {key}: add it to OPTIONS in configuration_iiet.py, and what it does to \
                 modeling_iiet.py"
            );
        }
    }
}

#[test]
fn the_python_files_lie_beside_the_weights_and_are_recorded() {
    let device = Device::default();
    for case in ["iiet-r3-gqa-untied", "pcformer-rk4", "rk4"] {
        let (model, config) = load(&golden(case), &device).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let manifest = save(&model, dir.path(), &SaveOptions::default()).unwrap();
        let text = fs::read_to_string(dir.path().join("config.json")).unwrap();
        let keys: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(keys["model_type"], "iiet");
        for (class, place) in keys["auto_map"].as_object().unwrap() {
            let (file, name) = place.as_str().unwrap().split_once('.').unwrap();
            let file = format!("{file}.py");
            assert!(manifest.contains(&file), "{case}: {class}");
            let python = fs::read_to_string(dir.path().join(&file)).unwrap();
            assert!(python.contains(&format!("\nclass {name}(")), "{name}");
        }
        // What the directory is for is not what the model is: two such configurations are equal.
        assert_eq!(load(dir.path(), &device).unwrap().1, config);

        fs::write(dir.path().join("modeling_iiet.py"), "pass\n").unwrap();
        let error = load(dir.path(), &device).unwrap_err().to_string();
        assert!(error.contains("modeling_iiet.py"), "{error}");
    }
}

#[test]
fn a_llama_needs_no_python_files() {
    let device = Device::default();
    let (model, _) = load(&golden("euler-gqa-untied"), &device).unwrap();
    let dir = tempfile::tempdir().unwrap();
    save(&model, dir.path(), &SaveOptions::default()).unwrap();
    let entries = fs::read_dir(dir.path()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(
        names,
        ["config.json", "iiet-manifest.json", "model.safetensors"]
    );
    let text = fs::read_to_string(dir.path().join("config.json")).unwrap();
    assert!(
        text.contains("LlamaForCausalLM") && !text.contains("auto_map"),
        "{text}"
    );
}

/// Directories of earlier versions have neither the files nor the key.
#[test]
fn a_directory_without_python_files_loads_unchanged() {
    let device = Device::default();
    let (model, config) = load(&golden("iiet-r3-gqa-untied"), &device).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut manifest = Manifest::new();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(
            golden("iiet-r3-gqa-untied").join(name),
            dir.path().join(name),
        )
        .unwrap();
    }
    let written = config.to_json();
    assert!(
        !written.contains("auto_map"),
        "resumed runs compare this text"
    );
    fs::write(dir.path().join("config.json"), written).unwrap();
    for name in ["config.json", "model.safetensors"] {
        let record = FileRecord::of(&dir.path().join(name)).unwrap();
        manifest.add(name, record);
    }
    manifest.write(dir.path()).unwrap();
    let (again, config_again) = load(dir.path(), &device).unwrap();
    assert_eq!(config_again, config);
    assert_eq!(logits(&again), logits(&model));
}
