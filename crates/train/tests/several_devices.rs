//! Runs on several devices, all of them flex, with sums as NCCL computes them between GPUs.

mod place;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{Device, Tensor, TensorData};
use iiet_model::parse_safetensors;
use iiet_train::{AllReduce, Devices, Record, TrainError};
use place::{Place, RUNNING};

/// Sums in host memory; each device receives a separate copy.
#[derive(Debug)]
struct OnHost {
    devices: usize,
    sums: Arc<AtomicUsize>,
}

impl AllReduce for OnHost {
    fn sum(&self, of_each: Vec<Tensor<1>>) -> Vec<Tensor<1>> {
        assert_eq!(of_each.len(), self.devices);
        self.sums.fetch_add(1, Ordering::Relaxed);
        let devices: Vec<Device> = of_each.iter().map(Tensor::device).collect();
        let values = |part: Tensor<1>| part.try_into_vec_as::<f32>().unwrap();
        let parts: Vec<Vec<f32>> = of_each.into_iter().map(values).collect();
        let sum: Vec<f32> = (0..parts[0].len())
            .map(|i| parts.iter().map(|part| part[i]).sum())
            .collect();
        let copy = |device: &Device| {
            Tensor::from_data(TensorData::new::<f32, _>(sum.clone(), [sum.len()]), device)
        };
        devices.iter().map(copy).collect()
    }
}

/// Several devices, and the number of sums computed.
fn devices(count: usize) -> (Devices, Arc<AtomicUsize>) {
    let sums = Arc::new(AtomicUsize::new(0));
    let on_host = OnHost {
        devices: count,
        sums: Arc::clone(&sums),
    };
    let others = vec![Device::default(); count - 1];
    let devices = Devices::several(Device::default(), others, on_host);
    (devices, sums)
}

/// A text of less than three windows, so that about every third micro-batch is mostly padding.
fn short_text(place: &Place) -> [String; 2] {
    let (text, held_out) = (place.path("short.txt"), place.path("held-out.txt"));
    fs::write(&text, "The cat sat on the mat, and the dog.").unwrap();
    fs::write(&held_out, "The dog sat on the cat, and the mat lay there.").unwrap();
    [
        format!("data.source={}", text.display()),
        format!("data.validation={}", held_out.display()),
    ]
}

/// All parameters of a run's model, in the order of the file.
fn parameters(run: &Path) -> Vec<f32> {
    let path = run.join("model/model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = parse_safetensors(&path, &bytes).unwrap();
    let mut names = file.names();
    names.sort_unstable();
    let values = names.into_iter().flat_map(|name| {
        let (values, _) = file.tensor(name).unwrap().data().as_chunks::<4>();
        values
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect::<Vec<_>>()
    });
    values.collect()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let squares = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
    squares.sum::<f64>().sqrt()
}

/// Metrics and parameters of two runs differ by no more than the order of additions.
fn assert_same_training(
    (alone, of_one): &(Vec<Record>, Vec<f32>),
    (together, of_several): &(Vec<Record>, Vec<f32>),
    name: &str,
) {
    assert_eq!(alone.len(), together.len(), "{name}");
    for (a, b) in alone.iter().zip(together) {
        let step = a.step;
        assert_eq!(a.tokens, b.tokens, "{name}, step {step}");
        for (a, b) in [(a.loss, b.loss), (a.grad_norm, b.grad_norm)] {
            assert!(
                (a / b - 1.0).abs() < 1e-5,
                "{name}, step {step}: {a} and {b}"
            );
        }
    }
    let apart = distance(of_one, of_several) / distance(of_one, &vec![0.0; of_one.len()]);
    assert!(apart < 1e-6, "{name}: {apart}");
}

#[test]
fn the_number_of_devices_changes_only_the_order_of_additions() {
    let place = Place::new();
    let [source, validation] = short_text(&place);
    for (solver, recompute) in [
        ("explicit_euler", "none"),
        ("iterative_implicit_euler", "none"),
        ("iterative_implicit_euler", "layer"),
    ] {
        let (solver_key, recompute_key) = (
            format!("model.solver={solver}"),
            format!("train.recompute={recompute}"),
        );
        let sets = [
            source.as_str(),
            &validation,
            &solver_key,
            &recompute_key,
            "train.batch=1",
            "train.accumulation=6",
            // Below every gradient norm.
            "train.clip=0.5",
        ];
        let run = |count: usize| {
            let name = format!("{solver}-{recompute}-{count}");
            let (devices, sums) = devices(count);
            place
                .go_on(&devices, &name, &sets, false, &RUNNING)
                .unwrap();
            assert!(
                sums.load(Ordering::Relaxed) >= 12,
                "every gradient is summed"
            );
            (place.records(&name), parameters(&place.path(&name)))
        };
        let one = run(1);
        let (alone, _) = &one;
        assert!(alone.iter().all(|record| record.grad_norm > 0.5));
        // Short windows: a step has fewer than 6 x 16 tokens, and a varying number.
        let tokens: Vec<u64> = alone
            .windows(2)
            .map(|two| two[1].tokens - two[0].tokens)
            .collect();
        assert!(tokens.iter().all(|of_step| *of_step < 96), "{tokens:?}");
        for count in [2, 3] {
            let name = format!("{solver} on {count}");
            assert_same_training(&one, &run(count), &name);
        }
    }
}

/// Micro-batches by tokens have different numbers of pairs, and each its own dropout masks.
#[test]
fn an_encoder_decoder_trains_on_several_devices() {
    let place = Place::new();
    let lines = (0..200).map(|i| {
        let words = 1 + i % 7;
        let (source, target) = ("one two ".repeat(words), "two one ".repeat(words));
        format!("{{\"in\": \"{i} {source}\", \"out\": \"{target}{i}\"}}\n")
    });
    fs::write(place.path("pairs.jsonl"), lines.collect::<String>()).unwrap();
    let source = format!("data.source={}", place.path("pairs.jsonl").display());
    let sets = [
        source.as_str(),
        "data.source_field=in",
        "data.target_field=out",
        "model.seq_len=64",
        "model.encoder={n_layers=2, solver={name='iterative_implicit_euler', iterations=2}}",
        "train.batch=0",
        "train.batch_tokens=64",
        "train.accumulation=6",
        "train.dropout.residual=0.1",
        "train.label_smoothing=0.1",
    ];
    let run = |count: usize| {
        let name = format!("pairs-{count}");
        place
            .go_on(&devices(count).0, &name, &sets, false, &RUNNING)
            .unwrap();
        (place.records(&name), parameters(&place.path(&name)))
    };
    let one = run(1);
    for count in [2, 3] {
        assert_same_training(&one, &run(count), &format!("pairs on {count}"));
    }
}

#[test]
fn several_devices_of_count_one_equal_one_device() {
    let place = Place::new();
    let sets = ["train.accumulation=2"];
    place.run("one", &sets).unwrap();
    place
        .go_on(&devices(1).0, "several", &sets, false, &RUNNING)
        .unwrap();
    assert_eq!(place.losses("one"), place.losses("several"));
}

#[test]
fn a_run_resumes_with_another_number_of_devices() {
    let place = Place::new();
    let sets = [
        "train.accumulation=6",
        "train.stages=[{solver='explicit_euler', share=0.67}, {solver='iterative_implicit_euler', share=0.33}]",
    ];
    let go = |count: usize, name: &str, resume: bool| {
        place
            .go_on(&devices(count).0, name, &sets, resume, &RUNNING)
            .unwrap()
    };
    let cut =
        |name: &str| fs::remove_dir_all(place.path(name).join("checkpoints/step-12")).unwrap();
    for count in [1, 2] {
        go(count, &format!("whole-{count}"), false);
    }
    for (before, after) in [(1, 2), (2, 1), (2, 3), (2, 2)] {
        let name = format!("{before}-then-{after}");
        go(before, &name, false);
        cut(&name);
        assert_eq!(go(after, &name, true).step, 12);
        for (a, b) in place.records("whole-1").iter().zip(&place.records(&name)) {
            assert!(
                (a.loss / b.loss - 1.0).abs() < 1e-5,
                "{name}, step {}",
                a.step
            );
            assert_eq!(a.tokens, b.tokens, "{name}");
        }
    }
    // With the same number of devices results are bitwise identical, whatever the number was in
    // between.
    assert_eq!(place.losses("2-then-2"), place.losses("whole-2"));
}

#[test]
fn micro_batches_that_cannot_be_divided_evenly_are_an_early_error() {
    let place = Place::new();
    for (count, accumulation) in [(2, 1), (2, 3), (3, 4)] {
        let set = format!("train.accumulation={accumulation}");
        let error = place
            .go_on(&devices(count).0, "run", &[&set], false, &RUNNING)
            .unwrap_err();
        assert!(matches!(error, TrainError::Value { .. }), "{error}");
        let expected = format!(
            "train.accumulation is {accumulation}; allowed: a multiple of {count}, the number of devices of all ranks; "
        );
        let message = error.to_string();
        assert!(message.starts_with(&expected), "{message}");
        assert!(!place.path("run").exists() && !place.path("cache").exists());
    }
}
