//! Sweeps as their user meets them: real trials in child processes, signals, kills, failures.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

/// A folder with a text and a configuration.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let lines = (0..400).map(|i| format!("{i} and {i} make {}.\n", 2 * i));
        fs::write(place.path("text.txt"), lines.collect::<String>()).unwrap();
        let text = "[model]\nd_model = 16\nd_ff = 32\nn_layers = 2\nn_heads = 2\nseq_len = 16\n\
                    solver = 'explicit_euler'\n[data]\nsource = 'text.txt'\nvocab_size = 300\n\
                    [train]\nsteps = 8\nbatch = 4\nlr = 1e-2\nlog_every = 1\neval_every = 2\n\
                    eval_tokens = 64\n";
        fs::write(place.path("small.toml"), text).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iiet"));
        command
            .arg("sweep")
            .args(arguments)
            .env("RAYON_NUM_THREADS", "2")
            .current_dir(self.0.path());
        command
    }

    fn sweep(&self, more: &[&str]) -> Command {
        let mut command = self.command(&["--config", "small.toml", "--out", "sweep"]);
        command.args(more);
        command
    }

    fn results(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("sweep/sweep.jsonl")).unwrap();
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The final validation losses by trial.
    fn losses(&self) -> Vec<(String, Value)> {
        let results = self.results().into_iter();
        let of = |result: Value| {
            let name = result["trial"].as_str().unwrap().to_owned();
            (name, result["final"]["validation_loss"].clone())
        };
        results.map(of).collect()
    }

    /// A sweep whose first trial has just written a checkpoint.
    fn running(&self, more: &[&str]) -> Child {
        let mut child = self
            .sweep(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let begun = lines.find_map(|line| {
            let line = line.unwrap();
            line.split_once(" begins").map(|(name, _)| name.to_owned())
        });
        let checkpoints = format!("sweep/runs/{}/checkpoints", begun.unwrap());
        let is_there = || {
            let mut entries = fs::read_dir(self.path(&checkpoints)).into_iter().flatten();
            entries.any(|entry| {
                !entry
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .starts_with('.')
            })
        };
        while !is_there() {
            assert!(child.try_wait().unwrap().is_none(), "the sweep ended");
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }
}

fn send(signal: &str, child: &Child) {
    let kill = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn trials_are_compared_and_a_failed_one_is_a_result() {
    let place = Place::new();
    let grid = [
        "--grid",
        "train.lr=1e-2,1e30,1e-3",
        "--jobs",
        "2",
        "--seeds",
        "2",
    ];
    let printed = succeeded(&place.sweep(&grid).output().unwrap());
    let results = place.results();
    assert_eq!(results.len(), 6);
    for result in &results {
        let diverges = result["settings"]["train.lr"] == 1e30;
        let expected = if diverges { "failed" } else { "finished" };
        assert_eq!(result["state"], expected, "{result}");
        if diverges {
            assert!(
                result["reason"].as_str().unwrap().contains("step "),
                "{result}"
            );
        } else {
            assert_eq!(
                (&result["step"], &result["threads"]),
                (&8.into(), &1.into())
            );
            assert_eq!(result["curve"].as_array().unwrap().len(), 4);
            assert!(result["seconds"].as_f64().unwrap() > 0.0);
            assert!(
                result["final"]["validation_bits_per_byte"]
                    .as_f64()
                    .unwrap()
                    > 0.0
            );
        }
    }
    // A sweep's trial is the run that its settings describe.
    let alone = Command::new(env!("CARGO_BIN_EXE_iiet"))
        .args(["train", "--config", "small.toml", "--run", "alone"])
        .args(["--set", "train.lr=1e-3", "--set", "train.seed=1"])
        .env("RAYON_NUM_THREADS", "1")
        .current_dir(place.0.path())
        .output();
    succeeded(&alone.unwrap());
    let last = fs::read_to_string(place.path("alone/metrics.jsonl")).unwrap();
    let last: Value = serde_json::from_str(last.lines().last().unwrap()).unwrap();
    let losses = place.losses();
    let own = losses.iter().find(|(name, _)| name == "lr=0.001_seed=1");
    assert_eq!(own.unwrap().1, last["validation_loss"]);
    // All of them used one corpus.
    let corpora = fs::read_dir(place.path("data")).unwrap();
    let corpora = corpora.filter(|entry| entry.as_ref().unwrap().path().is_dir());
    assert_eq!(corpora.count(), 1);

    let table = fs::read_to_string(place.path("sweep/sweep.md")).unwrap();
    assert!(printed.contains(table.trim()), "{printed}");
    assert!(table.contains("2 (2 failed)"), "{table}");
    let svg = fs::read_to_string(place.path("sweep/sweep.svg")).unwrap();
    assert!(svg.contains("train.lr (logarithmic scale)"));

    // The table and the picture need the results alone.
    fs::rename(place.path("sweep/sweep.jsonl"), place.path("kept.jsonl")).unwrap();
    let more = [
        "--metric",
        "validation_loss",
        "--picture",
        "pictures/sweep.svg",
    ];
    let output = place
        .command(&["--table", "kept.jsonl"])
        .args(more)
        .output()
        .unwrap();
    let printed = succeeded(&output);
    assert!(
        printed.contains("| lr | seeds | validation_loss |"),
        "{printed}"
    );
    assert!(place.path("pictures/sweep.svg").exists());
}

#[test]
fn a_killed_sweep_goes_on_and_ends_as_one_that_was_not() {
    let grid = [
        "--grid",
        "train.lr=1e-2,1e-3",
        "--set",
        "train.checkpoint_every=2",
    ];
    let whole = Place::new();
    succeeded(&whole.sweep(&grid).arg("--budget=60").output().unwrap());
    let killed = Place::new();
    let mut child = killed.running(&[&grid[..], &["--budget", "60"]].concat());
    child.kill().unwrap();
    child.wait().unwrap();
    succeeded(&killed.sweep(&grid).arg("--budget=60").output().unwrap());
    assert_eq!(killed.losses(), whole.losses());
    assert_eq!(whole.results()[0]["steps"], 60);
}

#[test]
fn a_signal_stops_the_trials_with_checkpoints() {
    let place = Place::new();
    let many = [
        "--grid",
        "train.lr=1e-2,1e-3",
        "--set",
        "train.checkpoint_every=2",
    ];
    let child = place.running(&[&many[..], &["--budget", "1000000", "--jobs", "2"]].concat());
    send("-TERM", &child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143));
    assert!(text(&output.stdout).contains("stopped with 0 of 2 trials finished"));
    let results = place.results();
    assert!(results.iter().any(|result| result["step"] != 0));
    for result in results {
        assert_ne!(result["state"], "failed", "{result}");
        // The second trial may not have taken a step yet.
        if result["step"] != 0 {
            let step = &result["step"];
            let run = format!("sweep/runs/{}", result["trial"].as_str().unwrap());
            assert!(
                place
                    .path(&format!("{run}/checkpoints/step-{step}/state.json"))
                    .exists()
            );
        }
    }
}

#[test]
fn halving_ends_most_trials_early() {
    let place = Place::new();
    let grid = ["--grid", "train.lr=1e-5,1e-2,1e-4,1e-6", "--halving"];
    succeeded(&place.sweep(&grid).output().unwrap());
    let found: Vec<(Value, Value)> = place
        .results()
        .into_iter()
        .map(|result| (result["state"].clone(), result["step"].clone()))
        .collect();
    let states: Vec<String> = found
        .iter()
        .map(|(state, step)| format!("{state} {step}"))
        .collect();
    assert_eq!(
        states,
        [
            "\"dropped\" 2",
            "\"finished\" 8",
            "\"dropped\" 4",
            "\"dropped\" 2"
        ]
    );
}

#[test]
fn mistakes_are_named_before_the_first_trial() {
    let place = Place::new();
    for (more, expected) in [
        (
            vec!["--grid", "train.lrr=1,2"],
            "trial lrr=1_seed=0: --set train.lrr=1: unknown field `lrr`",
        ),
        (
            vec!["--grid", "train.lr"],
            "--grid train.lr: expected KEY=VALUE,VALUE",
        ),
        (vec!["--set", "data.source=missing.txt"], "missing.txt"),
        (vec!["--device", "cuda:99"], "--device cuda:99"),
    ] {
        let mut command = place.command(&["--config", "small.toml", "--out", "other"]);
        let output = command.args(&more).output();
        let output = output.unwrap();
        assert!(!output.status.success());
        let error = text(&output.stderr);
        assert!(error.contains(expected), "{error}");
        assert!(!place.path("other/sweep.jsonl").exists());
    }
    fs::write(place.path("broken.jsonl"), "{\"trial\": 1}\n").unwrap();
    let output = place
        .command(&["--table", "broken.jsonl"])
        .output()
        .unwrap();
    assert!(text(&output.stderr).contains("broken.jsonl, line 1: "));
}
