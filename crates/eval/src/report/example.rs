//! A report that the tests of its table can read.

use std::borrow::Cow;

use super::{
    AskedTask, Estimate, Machine, ModelCost, ModelReport, Quality, Report, Round, ScoreQuality,
    Sides, Speed, Stack, TaskQuality, TokenCost, Workload,
};
use crate::texts::{Interval, TextScore};

fn estimate(value: f64, standard_error: f64) -> Estimate {
    Estimate {
        value,
        standard_error: Some(standard_error),
    }
}

pub(super) fn stack() -> Stack {
    Stack {
        solver: "iterative_implicit_euler",
        iterations: None,
        layers: 4,
    }
}

/// Of four layers beside eight evaluations.
pub(super) fn token_cost(evaluations: usize) -> TokenCost {
    let share = evaluations as f64 / 8.0;
    TokenCost {
        evaluations,
        evaluations_by_layer: vec![evaluations / 4; 4],
        evaluations_per_layer: evaluations as f64 / 4.0,
        forward_flops: 4e6 * share,
        cache_bytes: 1024 * evaluations as u64,
        share_of_evaluations: share,
        share_of_flops: share,
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
        scores: Vec::new(),
    };
    ModelReport {
        name: name.to_owned(),
        path: name.into(),
        model_hash: String::new(),
        stacks: Sides::One(stack()),
        d_model: 128,
        d_ff: 352,
        context: 128,
        vocab_size: 4096,
        cost: ModelCost {
            parameters: 1_330_354,
            weight_bytes: 5_321_416,
            share_of_parameters: 1.0,
            share_of_bytes: 1.0,
            tokens: Sides::One(token_cost(evaluations)),
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

/// The same as an encoder-decoder, plain in its decoder, with a BLEU score for its accuracy.
pub(super) fn encoder_decoder(name: &str, evaluations: usize, bleu: f64) -> ModelReport {
    let mut model = model(name, evaluations, bleu);
    model.stacks = Sides::Two {
        encoder: stack(),
        decoder: stack(),
    };
    model.cost.tokens = Sides::Two {
        encoder: token_cost(evaluations),
        decoder: token_cost(8),
    };
    let of_texts = model.quality.tasks.last_mut().unwrap();
    (of_texts.task, of_texts.metric) = ("translation", Cow::Borrowed("BLEU"));
    (of_texts.retention, of_texts.chance) = (None, None);
    of_texts.scores.push(ScoreQuality {
        text: TextScore {
            name: "BLEU",
            score: bleu,
            signature: "nrefs:1".to_owned(),
            detail: None,
            interval: Some(Interval {
                mean: bleu + 0.05,
                half_width: 0.5,
            }),
            p_value: Some(0.04),
            rouge: None,
            of_segments: None,
        },
        difference: Some(estimate(bleu - 26.5, 0.1)),
    });
    model.quality.accuracy = None;
    model.quality.retention = None;
    model
}

pub(super) fn report(models: Vec<ModelReport>) -> Report {
    let has_sides = matches!(models[0].stacks, Sides::Two { .. });
    Report {
        models,
        tasks: vec![AskedTask {
            name: "heldout_bpb",
            version: 1.0,
            documents: 1024,
            used: 1024,
            num_fewshot: 0,
            search: None,
            split: None,
            place: "the locked dependencies of /project".to_owned(),
            items_hash: "a1".to_owned(),
        }],
        workload: Workload {
            batch: if has_sides { 8 } else { 1 },
            beam: if has_sides { 4 } else { 1 },
            prompt_tokens: 96,
            decoded_tokens: 32,
            rounds: 7,
        },
        machine: Machine::this(),
        notes: vec!["A note.".to_owned()],
        version: "0",
    }
}
