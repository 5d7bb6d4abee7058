//! Runs over several ranks, which are threads of this process.

mod place;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;
use iiet_train::{
    ClaimedRun, Devices, Event, NextToken, Observer, Ranks, Record, RunConfig, RunOptions, Summary,
    Threads, TrainError, train,
};
use place::{Place, RUNNING};

/// What a rank does.
struct Work<'a> {
    place: &'a Place,
    name: &'a str,
    resume: bool,
    /// The step after which it is interrupted.
    until: Option<u64>,
    interrupt: &'a AtomicBool,
    config: RunConfig,
}

/// Interrupts a run after a step.
struct StopAfter<'a>(Option<u64>, &'a AtomicBool);

impl Observer for StopAfter<'_> {
    fn on(&mut self, event: &Event<'_>) {
        if let Event::Step { step } = event
            && Some(*step) == self.0
        {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

impl Work<'_> {
    fn on(&self, ranks: Ranks) -> Result<Summary, TrainError> {
        let path = self.place.path(self.name);
        let run = ClaimedRun::of_ranks(&ranks, || match self.resume {
            true => ClaimedRun::existing(Some(&path), ""),
            false => ClaimedRun::new(Some(&path), ""),
        })?;
        let options = RunOptions {
            run,
            revision: None,
            on_host: true,
            objective: &NextToken,
            interrupt: self.interrupt,
            progress: &(),
            observer: &mut StopAfter(self.until, self.interrupt),
        };
        let devices = Devices::one(Device::default()).across(ranks);
        train(&self.config, options, &devices)
    }
}

/// A run to its end.
fn work<'a>(place: &'a Place, name: &'a str, sets: &[&str], resume: bool) -> Work<'a> {
    Work {
        place,
        name,
        resume,
        until: None,
        interrupt: &RUNNING,
        config: place.config(sets).unwrap(),
    }
}

/// The results of as many ranks as there are works.
fn together(works: &[Work<'_>]) -> Vec<Result<Summary, TrainError>> {
    std::thread::scope(|scope| {
        let ranks = Threads::new(works.len()).into_iter().map(Ranks::new);
        let threads: Vec<_> = ranks
            .zip(works)
            .map(|(ranks, work)| scope.spawn(|| work.on(ranks)))
            .collect();
        let results = threads.into_iter().map(|thread| thread.join().unwrap());
        results.collect()
    })
}

fn run(place: &Place, count: usize, name: &str, sets: &[&str], resume: bool) {
    let works: Vec<_> = (0..count)
        .map(|_| work(place, name, sets, resume))
        .collect();
    for result in together(&works) {
        result.unwrap();
    }
}

fn model(place: &Place, name: &str) -> Vec<u8> {
    fs::read(place.path(name).join("model/model.safetensors")).unwrap()
}

/// The records without what depends on time.
fn timeless(records: Vec<Record>) -> Vec<Record> {
    let timeless = |record| Record {
        tokens_per_second: 0.0,
        flops_utilisation: None,
        exchange_seconds: None,
        ..record
    };
    records.into_iter().map(timeless).collect()
}

fn assert_close(alone: &[Record], together: &[Record], tolerance: f64) {
    assert_eq!(alone.len(), together.len());
    for (a, b) in alone.iter().zip(together) {
        assert_eq!((a.step, a.tokens, a.lr), (b.step, b.tokens, b.lr));
        let validation = [a, b].map(|record| record.validation_loss.unwrap_or(1.0));
        for (a, b) in [
            (a.loss, b.loss),
            (a.grad_norm, b.grad_norm),
            (a.bits_per_byte.unwrap(), b.bits_per_byte.unwrap()),
            (validation[0], validation[1]),
        ] {
            assert!((a / b - 1.0).abs() < tolerance, "{a} and {b}");
        }
    }
}

const SETS: [&str; 4] = [
    "train.batch=1",
    "train.accumulation=4",
    "train.clip=0.5",
    "model.solver=iterative_implicit_euler",
];

#[test]
fn the_number_of_ranks_changes_only_the_order_of_additions() {
    let place = Place::new();
    run(&place, 1, "alone", &SETS, false);
    let alone = place.records("alone");
    for (recompute, shard, precision) in [
        ("none", "none", "f32"),
        ("layer", "none", "f32"),
        ("none", "optimizer", "f32"),
        ("layer", "optimizer", "f32"),
        ("layer", "optimizer", "bf16"),
    ] {
        let keys = [
            format!("train.recompute={recompute}"),
            format!("train.shard={shard}"),
            format!("train.precision={precision}"),
        ];
        let sets: Vec<&str> = SETS
            .into_iter()
            .chain(keys.iter().map(String::as_str))
            .collect();
        let alone = match precision {
            "f32" => alone.clone(),
            _ => {
                run(&place, 1, precision, &sets, false);
                place.records(precision)
            }
        };
        let tolerance = if precision == "f32" { 1e-5 } else { 1e-2 };
        for count in [2, 4] {
            let name = format!("{recompute}-{shard}-{precision}-{count}");
            run(&place, count, &name, &sets, false);
            let together = place.records(&name);
            assert_close(&alone, &together, tolerance);
            assert!(together[0].exchange_seconds.is_some());
            let again = format!("{name}-again");
            run(&place, count, &again, &sets, false);
            assert_eq!(timeless(together), timeless(place.records(&again)));
            assert!(model(&place, &name) == model(&place, &again), "{name}");
        }
    }
}

#[test]
fn rounded_gradients_train_nearly_as_well() {
    let place = Place::new();
    let sets: Vec<&str> = SETS.into_iter().chain(["train.transfer=bf16"]).collect();
    run(&place, 1, "alone", &SETS, false);
    run(&place, 2, "rounded", &sets, false);
    assert_close(&place.records("alone"), &place.records("rounded"), 2e-2);
    assert!(model(&place, "alone") != model(&place, "rounded"));
}

/// The files of a checkpoint whose names begin with `optimizer`.
fn optimizer_files(checkpoint: &Path) -> Vec<String> {
    let entries = fs::read_dir(checkpoint).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("optimizer")).collect();
    names.sort();
    names
}

#[test]
fn a_checkpoint_is_resumed_by_any_number_of_ranks() {
    let place = Place::new();
    let sharded: Vec<&str> = SETS
        .into_iter()
        .chain(["train.shard=optimizer", "train.recompute=layer"])
        .collect();
    run(&place, 1, "alone", &sharded, false);
    for (before, after) in [(4, 4), (4, 2), (4, 1), (2, 4), (1, 4)] {
        let name = format!("{before}-{after}");
        let interrupts: Vec<_> = (0..before).map(|_| AtomicBool::new(false)).collect();
        let works = interrupts.iter().map(|interrupt| Work {
            interrupt,
            until: Some(6),
            ..work(&place, &name, &sharded, false)
        });
        for result in together(&works.collect::<Vec<_>>()) {
            assert_eq!(result.unwrap().step, 6);
        }
        let files = optimizer_files(&place.path(&name).join("checkpoints/step-6"));
        match before {
            1 => assert_eq!(files, ["optimizer.safetensors"]),
            count => {
                assert_eq!(files.len(), count);
                let last = format!("optimizer-{count:05}-of-{count:05}.safetensors");
                assert_eq!(files[count - 1], last);
            }
        }
        run(&place, after, &name, &sharded, true);
        assert_close(&place.records("alone"), &place.records(&name), 1e-5);
        if before == after {
            let clean = format!("{name}-clean");
            run(&place, after, &clean, &sharded, false);
            assert_eq!(
                timeless(place.records(&clean)),
                timeless(place.records(&name))
            );
            assert!(model(&place, &clean) == model(&place, &name));
        }
    }
}

#[test]
fn a_missing_part_is_named() {
    let place = Place::new();
    let sets: Vec<&str> = SETS.into_iter().chain(["train.shard=optimizer"]).collect();
    run(&place, 2, "run", &sets, false);
    let missing = "optimizer-00002-of-00002.safetensors";
    for step in ["step-6", "step-12"] {
        let checkpoint = place.path("run").join("checkpoints").join(step);
        fs::remove_file(checkpoint.join(missing)).unwrap();
    }
    let message = place.resume("run", &sets).unwrap_err().to_string();
    assert!(message.contains(missing), "{message}");
}

#[test]
fn ranks_that_differ_are_refused_with_the_difference() {
    let place = Place::new();
    let other_text = place.path("other");
    fs::create_dir(&other_text).unwrap();
    fs::write(other_text.join("a.txt"), "Another text. ".repeat(2000)).unwrap();
    let source = format!("data.source={}", other_text.display());
    for (set, expected) in [
        (
            "train.lr=0.5",
            "train.lr is 0.01 on rank 0 and 0.5 on rank 2",
        ),
        (source.as_str(), "data.source is"),
    ] {
        let works = [None, None, Some(set), None].map(|set| {
            let sets: Vec<&str> = SETS.into_iter().chain(set).collect();
            work(&place, "run", &sets, false)
        });
        for result in together(&works) {
            let message = result.unwrap_err().to_string();
            assert!(
                message.starts_with("rank 2 differs from rank 0:"),
                "{message}"
            );
            assert!(message.contains(expected), "{message}");
        }
        assert!(!place.path("run").join("config.toml").exists());
    }
}

#[test]
fn micro_batches_that_cannot_be_divided_are_refused_on_every_rank() {
    let place = Place::new();
    let works = [(); 3].map(|()| work(&place, "run", &SETS, false));
    for result in together(&works) {
        let message = result.unwrap_err().to_string();
        let expected = "train.accumulation is 4; allowed: a multiple of 3, the number of devices of all ranks; 3 and 6 are the nearest";
        assert_eq!(message, expected);
    }
}

#[test]
fn the_interrupt_of_one_rank_ends_all_after_the_same_step() {
    let place = Place::new();
    let interrupts = [AtomicBool::new(false), AtomicBool::new(true)];
    let works: Vec<_> = interrupts
        .iter()
        .map(|interrupt| Work {
            interrupt,
            ..work(&place, "run", &SETS, false)
        })
        .collect();
    for result in together(&works) {
        let summary = result.unwrap();
        assert_eq!(summary.step, 0);
        assert!(summary.checkpoint.ends_with("checkpoints/step-0"));
    }
    assert!(!interrupts[0].load(Ordering::Relaxed));
    run(&place, 2, "run", &SETS, true);
    run(&place, 2, "clean", &SETS, false);
    assert!(model(&place, "run") == model(&place, "clean"));
}

/// Fails the test if it is told anything.
struct Silent;

impl Observer for Silent {
    fn on(&mut self, event: &Event<'_>) {
        if let Event::Logged { .. } | Event::Sample { .. } | Event::Ended { .. } = event {
            panic!("only the first rank reports");
        }
    }
}

#[test]
fn only_the_first_rank_reports_and_writes() {
    let place = Place::new();
    let config = place.config(&SETS).unwrap();
    std::thread::scope(|scope| {
        for ranks in Threads::new(2).into_iter().map(Ranks::new) {
            let (place, config) = (&place, &config);
            scope.spawn(move || {
                let first = ranks.is_first();
                let run =
                    ClaimedRun::of_ranks(&ranks, || ClaimedRun::new(Some(&place.path("run")), ""));
                let mut silent = Silent;
                let options = RunOptions {
                    run: run.unwrap(),
                    revision: None,
                    on_host: true,
                    objective: &NextToken,
                    interrupt: &RUNNING,
                    progress: &(),
                    observer: match first {
                        true => &mut (),
                        false => &mut silent,
                    },
                };
                let devices = Devices::one(Device::default()).across(ranks);
                train(config, options, &devices).unwrap();
            });
        }
    });
    let lines = fs::read_to_string(place.path("run").join("metrics.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 12);
}
