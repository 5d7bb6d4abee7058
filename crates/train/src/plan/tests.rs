use burn::tensor::Device;
use iiet_model::{LanguageModel, Precision};

use super::*;
use crate::NextToken;

/// Two layers of width 8 over 512 tokens.
const TINY: &str = "[model]\nd_model = 8\nd_ff = 16\nn_layers = 2\nn_heads = 2\nn_kv_heads = 1\nseq_len = 4\nsolver = \"explicit_euler\"\n\n[data]\nvocab_size = 512\n\n[train]\nsteps = 10\nbatch = 3\naccumulation = 24\nlr = 1e-3\n";

/// Embedding 512 x 8; a layer of q and o 8 x 8, k and v 8 x 4, three of 8 x 16, and two norms; the last norm.
const PARAMETERS: u64 = 4096 + 2 * (2 * 64 + 2 * 32 + 3 * 128 + 2 * 8) + 8;

fn config(train: &str) -> RunConfig {
    toml::from_str(&format!("{TINY}{train}\n")).unwrap()
}

fn workload<'a>(train: &str, device: &'a Device) -> Workload<'a> {
    Workload::new(&config(train), &NextToken, device).unwrap()
}

fn on(ranks: usize, devices_per_rank: usize) -> Parallel {
    Parallel {
        ranks,
        devices_per_rank,
    }
}

fn machines(ranks: usize) -> Machines {
    Machines {
        parallel: on(ranks, 1),
        bandwidth: 1000.0,
        memory: None,
    }
}

const SPEED: Speed = Speed {
    micro_batch: 2.0,
    update: 1.0,
};

#[test]
fn one_rank_takes_its_computation_alone() {
    let device = Device::default();
    let plan = workload("", &device).plan(&machines(1), SPEED).unwrap();
    assert_eq!(plan.parameters, PARAMETERS);
    assert_eq!((plan.micro_batches, plan.tokens_per_step), (24, 24 * 12));
    assert_eq!(plan.sent.total(), 0);
    assert_eq!((plan.time.step, plan.one_device), (49.0, 49.0));
    assert_eq!(plan.efficiency, 1.0);
    assert_eq!(plan.memory.buckets, 0);
}

#[test]
fn four_ranks_send_what_a_ring_does() {
    let device = Device::default();
    for (train, gradients, weights) in [
        ("", 6 * PARAMETERS, 0),
        ("transfer = \"bf16\"", 3 * PARAMETERS, 0),
        ("shard = \"optimizer\"", 3 * PARAMETERS, 3 * PARAMETERS),
        (
            "shard = \"optimizer\"\ntransfer = \"bf16\"",
            3 * PARAMETERS / 2,
            3 * PARAMETERS,
        ),
    ] {
        let plan = workload(train, &device).plan(&machines(4), SPEED).unwrap();
        assert_eq!(
            (plan.sent.gradients, plan.sent.weights),
            (gradients, weights)
        );
        // Six micro-batches on each; at 1000 bytes per second. A part of the moments is a part of the update.
        let update = if weights > 0 { 0.25 } else { 1.0 };
        let exchange = (gradients + weights) as f64 / 1000.0;
        assert!((plan.time.step - (12.0 + update + exchange)).abs() < 1e-9);
        let efficiency = 49.0 / 4.0 / plan.time.step;
        assert!((plan.efficiency - efficiency).abs() < 1e-12);
    }
}

#[test]
fn recomputed_layers_hide_the_exchange_behind_the_last_backward_pass() {
    let train = config("recompute = \"layer\"").train;
    let sharing = (on(4, 1), 6);
    // Three of a micro-batch's four passes take 1.5 s.
    let of = |gradients, buckets| StepTime::of(&train, SPEED, sharing, [gradients, 0.25], buckets);
    assert_eq!(of(1.0, 10).hidden, 0.9);
    assert_eq!(of(8.0, 10).hidden, 1.5);
    assert_eq!(of(1.0, 1).hidden, 0.0);
    assert_eq!(of(8.0, 10).step, 12.0 + 1.0 + 8.25 - 1.5);
    let plain = config("").train;
    assert_eq!(
        StepTime::of(&plain, SPEED, sharing, [8.0, 0.25], 10).hidden,
        0.0
    );
}

#[test]
fn moments_are_sharded_and_the_rest_is_not() {
    let device = Device::default();
    let of = |train: &str, ranks| workload(train, &device).memory(on(ranks, 1)).unwrap();
    let whole = of("", 8);
    let sharded = of("shard = \"optimizer\"", 8);
    assert_eq!(whole.weights, 4 * PARAMETERS);
    assert_eq!(whole.moments, 8 * PARAMETERS);
    assert_eq!(sharded.moments, PARAMETERS);
    assert_eq!(sharded.weights, whole.weights);
    assert_eq!(sharded.gradients, whole.gradients);
    // All of the model is one bucket: put together, sent and received; and the embedding while it is sent.
    let buckets = 3 * 4 * PARAMETERS + 4 * 512 * 8;
    assert_eq!((whole.buckets, sharded.buckets), (buckets, buckets));
    let gathered = 4 * PARAMETERS + PARAMETERS / 2;
    assert_eq!((whole.gathered, sharded.gathered), (0, gathered));
    // Muon has no second moments of matrices.
    let muon = of("optimizer = \"muon\"", 8);
    let matrices = 2 * (2 * 64 + 2 * 32 + 3 * 128);
    assert_eq!(muon.moments, 8 * PARAMETERS - 4 * matrices);
}

#[test]
fn a_plan_of_one_rank_takes_the_memory_that_a_run_is_checked_for() {
    let device = Device::default();
    for train in [
        "",
        "recompute = \"layer\"",
        "precision = \"bf16\"\noptimizer = \"muon\"",
    ] {
        let (config, alone) = (config(train), Parallel::devices(1));
        let footprint = NextToken.footprint();
        let checked =
            RunMemory::of_run::<LanguageModel>(&config, 512, footprint, (alone, 24), &device);
        let planned = workload(train, &device).memory(alone).unwrap();
        assert_eq!(planned, checked.unwrap());
        assert_eq!(
            planned.rounded > 0,
            config.train.precision != Precision::F32
        );
    }
}

#[test]
fn uneven_micro_batches_are_refused_with_the_nearest_numbers() {
    let train = config("").train;
    assert_eq!(on(3, 4).micro_batches(&train).unwrap(), 2);
    for (parallel, nearest) in [
        (
            on(5, 1),
            "a multiple of 5, the number of devices of all ranks; 20 and 25 are the nearest",
        ),
        (
            on(16, 2),
            "a multiple of 32, the number of devices of all ranks; 32 is the least",
        ),
    ] {
        let message = parallel.micro_batches(&train).unwrap_err().to_string();
        assert!(message.contains("train.accumulation"), "{message}");
        assert!(message.ends_with(nearest), "{message}");
    }
}

#[test]
fn what_does_not_fit_comes_with_what_would() {
    let device = Device::default();
    let with = |memory| Machines {
        memory: Some(memory),
        ..machines(4)
    };
    let remedies = |batch: &str| {
        let config = TINY.replace("batch = 3", batch);
        let config = toml::from_str(&config).unwrap();
        let workload = Workload::new(&config, &NextToken, &device).unwrap();
        let needed = workload.memory(on(4, 1)).unwrap().total();
        let plan = |memory| workload.plan(&with(memory), SPEED).unwrap();
        assert!(plan(needed).remedies.is_empty());
        (needed, plan(needed - 1).remedies)
    };
    let each = [
        "train.shard=optimizer",
        "train.recompute=layer",
        "train.batch=1",
    ];
    let (needed, of_many) = remedies("batch = 64");
    let sets: Vec<&str> = of_many.iter().map(|remedy| remedy.set.as_str()).collect();
    assert_eq!(sets[..3], each);
    assert_eq!(sets[3], each.join(", "));
    let all = of_many[3].bytes;
    for remedy in &of_many[..3] {
        assert!(all <= remedy.bytes && remedy.bytes < needed, "{of_many:?}");
    }
    // Where the exchange is the peak, fewer activations do not help.
    let (_, of_one) = remedies("batch = 1");
    let sets: Vec<&str> = of_one.iter().map(|remedy| remedy.set.as_str()).collect();
    assert_eq!(sets, each[..1]);
}

#[test]
fn operations_count_the_passes() {
    let device = Device::default();
    let plain = workload("", &device);
    let recomputed = workload("recompute = \"layer\"", &device);
    let [three, four] = [&plain, &recomputed].map(Workload::micro_batch_flops);
    assert_eq!(three, 12.0 * 3.0 * plain.cost.flops_per_token);
    assert_eq!(4.0 * three, 3.0 * four);
    assert_eq!(plain.speed_at(2.0 * three).micro_batch, 0.5);
}

#[test]
fn a_measured_micro_batch_takes_time() {
    let device = Device::default();
    let workload = workload("", &device);
    workload.check_measurable().unwrap();
    let speed = workload.measure().unwrap();
    assert!(speed.micro_batch > 0.0 && speed.update >= 0.0, "{speed:?}");
}

#[test]
fn seven_billion_parameters_are_planned_without_them() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/7b.toml");
    let config = RunConfig::load(&path, &[]).unwrap();
    let device = Device::default();
    let workload = Workload::new(&config, &NextToken, &device).unwrap();
    let plan = workload.plan(&machines(512), SPEED).unwrap();
    assert!((6.7e9..6.8e9).contains(&(plan.parameters as f64)));
}
