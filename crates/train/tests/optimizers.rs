//! Muon and learning rates by group, in whole runs.

mod place;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::tensor::Device;
use iiet_compress::prune::Pattern;
use iiet_model::{LanguageModel, SaveOptions, load, load_config, prune_by_magnitude, save};
use place::Place;
use safetensors::SafeTensors;

const MUON: &str = "train.optimizer=muon";

fn tensors(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| -> Vec<f32> {
        let (values, _) = data.as_chunks();
        values.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    let tensors = file.iter();
    tensors
        .map(|(name, view)| (name.to_owned(), values(view.data())))
        .collect()
}

#[test]
fn muon_learns_keeps_one_moment_of_matrices_and_resumes_to_the_last_bit() {
    let place = Place::new();
    let sets = [MUON, "train.steps=40", "train.checkpoint_every=20"];
    place.run("run", &sets).unwrap();
    let records = place.records("run");
    let (first, last) = (records[0].loss, records[39].loss);
    assert!(last < first - 1.0, "{first} to {last}");

    let checkpoint = place.path("run/checkpoints/step-40");
    let state = tensors(&checkpoint.join("optimizer.safetensors"));
    let has = |name: &str, moment: u8| state.contains_key(&format!("{name}.moment_{moment}"));
    let parameters = tensors(&checkpoint.join("model.safetensors"));
    for name in parameters.keys() {
        let is_matrix = name.starts_with("model.layers.") && name.contains("proj");
        assert!(has(name, 1), "{name}");
        assert_eq!(has(name, 2), !is_matrix, "{name}");
    }

    let whole = place.losses("run");
    fs::remove_dir_all(&checkpoint).unwrap();
    place.resume("run", &sets).unwrap();
    assert_eq!(place.losses("run"), whole);
    let weights = tensors(&place.path("run/model/model.safetensors"));
    assert!(weights == parameters);

    let error = place.resume("run", &sets[1..]).unwrap_err().to_string();
    assert!(
        error.contains("train.optimizer was \"muon\" and is not set"),
        "{error}"
    );
}

#[test]
fn the_rate_of_iterated_layers_is_multiplied() {
    let place = Place::new();
    let sets = [
        "model.solver.iterations=[1, 0]",
        "train.steps=1",
        "train.warmup=0",
        "train.weight_decay=0",
    ];
    place.run("same", &sets).unwrap();
    place
        .run("half", &[&sets[..], &["train.iterated_lr=0.5"]].concat())
        .unwrap();
    let device = Device::default();
    let config = load_config(&place.path("same/model")).unwrap();
    let start: LanguageModel = LanguageModel::init(&config, 0, &device).unwrap();
    save(&start, &place.path("start"), &SaveOptions::default()).unwrap();
    let [start, same, half] = ["start", "same/model", "half/model"]
        .map(|dir| tensors(&place.path(dir).join("model.safetensors")));
    for (name, start) in &start {
        let factor = match name.starts_with("model.layers.0.") {
            true => 0.5,
            false => 1.0,
        };
        let moved = start.iter().zip(same[name].iter().zip(&half[name]));
        for (start, (same, half)) in moved {
            let (whole, part) = (same - start, half - start);
            assert!(
                (factor * whole - part).abs() < 1e-5,
                "{name}: {whole} and {part}"
            );
        }
    }
}

/// A pruned model stays pruned, whatever updates its matrices, and a resumed run goes on with the same zeros.
#[test]
fn zeros_are_kept() {
    let place = Place::new();
    place.run("dense", &["train.steps=2"]).unwrap();
    let (mut model, _) = load(&place.path("dense/model"), &Device::default()).unwrap();
    prune_by_magnitude(&mut model, Pattern::n_of_m(2, 4)).unwrap();
    let pruned = place.path("pruned");
    save(&model, &pruned, &SaveOptions::default()).unwrap();
    let tokenizer = "tokenizer.json";
    fs::copy(
        place.path("dense/model").join(tokenizer),
        pruned.join(tokenizer),
    )
    .unwrap();
    let init = format!("train.init={:?}", pruned.display().to_string());
    let before = tensors(&pruned.join("model.safetensors"));
    for (name, optimizer) in [("adamw", "train.optimizer=adamw"), ("muon", MUON)] {
        let sets = [
            init.as_str(),
            optimizer,
            "train.keep_zeros=true",
            "train.steps=3",
        ];
        place.run(name, &sets).unwrap();
        let after = tensors(&place.path(name).join("model/model.safetensors"));
        let mut moved = 0;
        for (name, before) in before.iter().filter(|(name, _)| name.contains("_proj")) {
            let pairs = before.iter().zip(&after[name]);
            for (before, after) in pairs {
                assert!(*before != 0.0 || *after == 0.0, "{name}: {after}");
                moved += usize::from(before != after);
            }
        }
        assert!(moved > 1000, "{moved}");
    }
    let error = place
        .config(&["train.keep_zeros=true"])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("train.keep_zeros is true; allowed with train.init alone"),
        "{error}"
    );
}

#[test]
fn impossible_settings_are_refused() {
    let place = Place::new();
    for (sets, expected) in [
        (vec!["train.optimizer=lion"], "unknown variant `lion`"),
        (
            vec!["train.momentum=0.9"],
            "train.momentum is 0.9; allowed with train.optimizer",
        ),
        (
            vec![MUON, "train.momentum=1.0"],
            "train.momentum is 1; allowed: 0 up to",
        ),
        (
            vec!["train.iterated_lr=0"],
            "train.iterated_lr is 0; allowed: finite and above 0",
        ),
    ] {
        let error = place.config(&sets).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    // What is not set is not written.
    let text = place.config(&[]).unwrap().to_toml();
    assert!(
        !text.contains("optimizer") && !text.contains("iterated_lr"),
        "{text}"
    );
}
