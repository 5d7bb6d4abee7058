//! Runs with passes through the model in half precision.

mod place;

use std::fs;

use iiet_files::{FileRecord, Manifest};
use iiet_model::Precision;
use iiet_train::RunConfig;
use place::Place;
use serde_json::Value;

const BF16: &str = "train.precision=bf16";
const F16: &str = "train.precision=f16";

#[test]
fn half_precision_trains_like_f32() {
    let place = Place::new();
    let run = |name: &str, sets: &[&str]| {
        let sets = [sets, &["train.steps=60"]].concat();
        let summary = place.run(name, &sets).unwrap();
        let losses: Vec<f64> = place.records(name).iter().map(|r| r.loss).collect();
        (losses, summary.validation.unwrap().loss)
    };
    let (wide, validation) = run("f32", &[]);
    for (precision, tolerance) in [(BF16, 0.03), (F16, 0.03)] {
        for recompute in ["none", "layer"] {
            let key = format!("train.recompute={recompute}");
            let (half, of_half) = run(&format!("{precision}-{recompute}"), &[precision, &key]);
            assert_ne!(half, wide, "{precision} rounds nothing");
            let pairs = half.iter().zip(&wide).chain([(&of_half, &validation)]);
            for (at, (half, wide)) in pairs.enumerate() {
                let apart = (half - wide).abs() / wide;
                assert!(
                    apart < tolerance,
                    "{precision}, step {at}: {half}, expected {wide}"
                );
            }
        }
    }
}

/// Master weights and optimiser state are f32: their values have more than eight significant bits.
#[test]
fn master_weights_are_f32() {
    let place = Place::new();
    place.run("run", &[BF16]).unwrap();
    let path = place.path("run/checkpoints/step-12/model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = iiet_model::parse_safetensors(&path, &bytes).unwrap();
    for (name, view) in file.iter() {
        let values = view.data().as_chunks::<4>().0.iter();
        let mut values = values.map(|bytes| u32::from_le_bytes(*bytes));
        assert_eq!(view.data().len() % 4, 0);
        if view.shape().len() == 2 && name.contains("proj") {
            assert!(
                values.any(|bits| bits & 0xffff != 0),
                "{name} has only rounded values"
            );
        }
    }
}

fn state(place: &Place, step: u64) -> Value {
    let path = place.path(&format!("run/checkpoints/step-{step}/state.json"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn scale(place: &Place, step: u64) -> Value {
    state(place, step)["loss_scale"].take()
}

#[test]
fn a_run_in_f16_resumes_exactly_with_its_loss_scale() {
    let place = Place::new();
    place.run("run", &[F16]).unwrap();
    let (whole, at_end) = (place.losses("run"), scale(&place, 12));
    assert_eq!(at_end["steps"], 12);
    assert!(at_end["scale"].as_f64().unwrap() >= 1.0);
    fs::remove_dir_all(place.path("run/checkpoints/step-12")).unwrap();
    place.resume("run", &[F16]).unwrap();
    assert_eq!(place.losses("run"), whole);
    assert_eq!(scale(&place, 12), at_end);
    // The other precisions have no loss scale.
    fs::remove_dir_all(place.path("run")).unwrap();
    place.run("run", &[BF16]).unwrap();
    assert_eq!(scale(&place, 12), Value::Null);
}

/// A scale that is far too large is halved until the gradients are finite; no step is lost.
#[test]
fn an_overflow_halves_the_scale_and_repeats_the_step() {
    let place = Place::new();
    place.run("run", &[F16]).unwrap();
    let calm = place.records("run");
    let before = scale(&place, 6)["scale"].as_f64().unwrap();
    fs::remove_dir_all(place.path("run/checkpoints/step-12")).unwrap();
    let checkpoint = place.path("run/checkpoints/step-6");
    let path = checkpoint.join("state.json");
    let mut changed = state(&place, 6);
    changed["loss_scale"]["scale"] = Value::from(2f64.powi(30));
    fs::write(&path, changed.to_string()).unwrap();
    let mut manifest = Manifest::read(&checkpoint).unwrap().unwrap();
    manifest.add("state.json", FileRecord::of(&path).unwrap());
    manifest.write(&checkpoint).unwrap();

    place.resume("run", &[F16]).unwrap();
    let after = scale(&place, 12)["scale"].as_f64().unwrap();
    assert!((before..2f64.powi(29)).contains(&after), "{after}");
    // The steps equal those of a run with the smaller scale, up to rounding.
    for (run, calm) in place.records("run").into_iter().zip(calm) {
        assert!((run.loss - calm.loss).abs() < 1e-2, "step {}", run.step);
        assert_eq!(run.tokens, calm.tokens);
    }
}

#[test]
fn a_precision_is_read_by_name() {
    let place = Place::new();
    let of = |set: &str| {
        place
            .config(&[set])
            .map(|config: RunConfig| config.train.precision)
    };
    assert_eq!(of("train.seed=1").unwrap(), Precision::F32);
    assert_eq!(of(BF16).unwrap(), Precision::Bf16);
    let error = of("train.precision=fp16").unwrap_err().to_string();
    assert!(error.contains("allowed: f32, bf16, f16"), "{error}");
}
