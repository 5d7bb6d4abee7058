//! Logits, loss and every gradient equal those of a PyTorch implementation.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use iiet_conformance::Case;
use iiet_train::RunConfig;

fn check(case: &Case) {
    for finding in case.compare(&Device::default()).unwrap() {
        assert!(finding.holds(), "{finding}");
        println!("{finding}");
    }
}

#[test]
fn golden_cases_agree() {
    Case::all().iter().for_each(check);
    Case::encoder_decoders().iter().for_each(check);
}

/// Further cases in a directory given by the environment; skipped if the variable is not set.
#[test]
fn cases_in_the_given_directory_agree() {
    if let Ok(dir) = std::env::var("IIET_GOLDEN") {
        let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{dir}: {error}"));
        let mut folders: Vec<PathBuf> = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.join("case.safetensors").exists())
            .collect();
        folders.sort();
        assert!(
            !folders.is_empty(),
            "{dir}: no folder with a case.safetensors"
        );
        folders
            .iter()
            .for_each(|folder| check(&Case::read(folder).unwrap()));
    }
}

/// Checks that the comparison can fail: a weight scaled by 1.5 is detected.
#[test]
fn a_changed_weight_is_detected() {
    for case in ["models/rk4", "encoder-decoders/rk2-iiet-schedule"] {
        a_changed_weight_is_detected_in(case);
    }
}

fn a_changed_weight_is_detected_in(case: &str) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(case);
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "case.safetensors"] {
        std::fs::copy(golden.join(name), folder.path().join(name)).unwrap();
    }
    let mut weights = std::fs::read(golden.join("model.safetensors")).unwrap();
    // The last entry of the file, which may belong to any parameter.
    let at = weights.len() - 4;
    let last = f32::from_le_bytes(weights[at..].try_into().unwrap());
    weights[at..].copy_from_slice(&(1.5 * last).to_le_bytes());
    std::fs::write(folder.path().join("model.safetensors"), weights).unwrap();
    let case = Case::read(folder.path()).unwrap();
    let findings = case.compare(&Device::default()).unwrap();
    assert!(findings.iter().any(|finding| !finding.holds()));
}

/// The golden losses are documented as those of `configs/tiny.toml`.
#[test]
fn the_golden_training_run_uses_the_tiny_configuration() {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| RunConfig::load(&crate_folder.join(path), &[]).unwrap();
    let (golden, tiny) = (
        read("golden/training.toml"),
        read("../../configs/tiny.toml"),
    );
    assert_eq!(golden.model, tiny.model);
    assert_eq!(golden.data.vocab_size, tiny.data.vocab_size);
    let optimisation = |run: &RunConfig| {
        let train = &run.train;
        let (decay, clip) = (train.weight_decay, train.clip);
        (train.batch, train.lr, train.warmup, train.seed, decay, clip)
    };
    assert_eq!(optimisation(&golden), optimisation(&tiny));
}
