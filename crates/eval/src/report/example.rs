//! A report that the tests of its table can read.

use std::borrow::Cow;

use super::{
    AskedTask, Estimate, Machine, ModelReport, Quality, Report, Round, Speed, TaskQuality,
    TokenCost, Workload,
};

fn estimate(value: f64, standard_error: f64) -> Estimate {
    Estimate {
        value,
        standard_error: Some(standard_error),
    }
}

/// A model of four layers; the reference has eight evaluations and an accuracy of a half.
pub(super) fn model(name: &str, evaluations: usize, accuracy: f64) -> ModelReport {
    let share = evaluations as f64 / 8.0;
    let round = Round {
        decoding: 125.0 / share,
        prefill: 1000.0 / share,
    };
    let bits = estimate(2.0 + 1.0 / evaluations as f64, 0.05);
    let difference = estimate(bits.value - 2.125, 0.01);
    let acc = estimate(accuracy, 0.02);
    let retention = Some(estimate(accuracy / 0.5, 0.03));
    let task = |task, metric, estimate, retention, chance| TaskQuality {
        task,
        items: 1024,
        metric: Cow::Borrowed(metric),
        estimate,
        difference: Some(difference),
        retention,
        chance,
        metrics: [(Cow::Borrowed(metric), estimate)].into(),
    };
    ModelReport {
        name: name.to_owned(),
        path: name.into(),
        model_hash: String::new(),
        solver: "iterative_implicit_euler",
        iterations: None,
        layers: 4,
        d_model: 128,
        d_ff: 352,
        context: 128,
        vocab_size: 4096,
        cost: TokenCost {
            parameters: 1_330_354,
            weight_bytes: 5_321_416,
            evaluations,
            evaluations_by_layer: vec![evaluations / 4; 4],
            evaluations_per_layer: evaluations as f64 / 4.0,
            forward_flops: 4e6 * share,
            cache_bytes: 1024 * evaluations as u64,
            share_of_parameters: 1.0,
            share_of_bytes: 1.0,
            share_of_evaluations: share,
            share_of_flops: share,
        },
        speed: Speed {
            decoding: round.decoding,
            prefill: round.prefill,
            decoding_ratio: 1.0 / share,
            prefill_ratio: 1.0 / share,
            rounds: vec![round; 7],
        },
        quality: Quality {
            bits_per_byte: Some(bits),
            bits_per_byte_difference: Some(difference),
            accuracy: Some(acc),
            accuracy_difference: Some(estimate(accuracy - 0.5, 0.015)),
            retention,
            bytes_per_token: Some(3.2),
            tasks: vec![
                task("heldout_bpb", "bits_per_byte", bits, None, None),
                task("heldout_choice", "acc", acc, retention, Some(0.25)),
            ],
        },
    }
}

pub(super) fn report(models: Vec<ModelReport>) -> Report {
    Report {
        models,
        tasks: vec![AskedTask {
            name: "heldout_bpb",
            version: 1.0,
            documents: 1024,
            used: 1024,
            num_fewshot: 0,
            split: None,
            place: "the locked dependencies of /project".to_owned(),
            items_hash: "a1".to_owned(),
        }],
        workload: Workload::within(128).unwrap(),
        machine: Machine::this(),
        notes: vec!["A note.".to_owned()],
        version: "0",
    }
}
