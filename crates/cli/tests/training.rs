//! Training as a user runs it: signals, unwritable streams, occupied directories.
#![cfg(unix)]

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

/// A directory with a text and a configuration.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let lines = (0..400).map(|i| format!("{i} and {i} make {}.\n", 2 * i));
        fs::write(place.path("text.txt"), lines.collect::<String>()).unwrap();
        let text = "[model]\nd_model = 16\nd_ff = 32\nn_layers = 2\nn_heads = 2\nseq_len = 16\n\
                    solver = 'explicit_euler'\n[data]\nsource = 'text.txt'\nvocab_size = 300\n\
                    [train]\nsteps = 8\nbatch = 4\nlr = 1e-2\nlog_every = 1\neval_every = 4\n";
        fs::write(place.path("small.toml"), text).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn train(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iiet"));
        command
            .args(["train", "--config", "small.toml"])
            .args(more)
            .current_dir(self.0.path());
        let default = || {
            for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGUSR1] {
                // SAFETY: signal() may be called between fork and exec, and SIG_DFL is no function.
                unsafe { libc::signal(signal, libc::SIG_DFL) };
            }
            Ok(())
        };
        // SAFETY: the closure takes no memory and no locks. Under nohup or in the background of a shell the
        // tests themselves ignore signals, which the process would inherit.
        unsafe { command.pre_exec(default) };
        command
    }

    fn run(&self, more: &[&str]) -> Output {
        self.train(more).output().unwrap()
    }

    fn losses(&self, run: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap();
        let records = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        records.map(|record| record["loss"].to_string()).collect()
    }

    /// A run of many steps, after its first step.
    fn running(&self, run: &str) -> Child {
        let mut child = self
            .train(&["--run", run, "--set", "train.steps=1000000"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("step ") {
            line.clear();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0, "the run ended");
        }
        // Read on, so that the pipe does not fill.
        std::thread::spawn(move || io::copy(&mut lines, &mut io::sink()));
        child
    }
}

fn send(signal: &str, child: &Child) {
    let kill = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
}

#[test]
fn a_signal_writes_a_checkpoint_and_sets_the_exit_code() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129), ("-USR1", 138)] {
        let place = Place::new();
        let child = place.running("run");
        send(signal, &child);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{signal}");
        let message = String::from_utf8_lossy(&output.stdout).into_owned();
        let steps = place.losses("run").len();
        let expected = format!(
            "stopped after step {steps} of 1000000, with the checkpoint run/checkpoints/step-{steps}"
        );
        assert!(message.contains(&expected), "{message}");
        assert!(
            place
                .path(&format!("run/checkpoints/step-{steps}/state.json"))
                .exists()
        );
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let place = Place::new();
    let child = place.running("run");
    // A stopped process receives both when it continues, before it can complete a step.
    for signal in ["-STOP", "-TERM", "-INT", "-CONT"] {
        send(signal, &child);
    }
    let status = child.wait_with_output().unwrap().status;
    assert!(
        matches!(status.code(), Some(130 | 143)) && status.signal().is_none(),
        "{status}"
    );
}

#[test]
fn unwritable_standard_error_does_not_end_training() {
    let place = Place::new();
    assert!(place.run(&["--run", "whole"]).status.success());
    let whole = place.losses("whole");
    assert_eq!(whole.len(), 8);

    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (reader, closed) = io::pipe().unwrap();
    drop(reader);
    for (name, stderr) in [("full", Stdio::from(full)), ("closed", closed.into())] {
        let output = place.train(&["--run", name]).stderr(stderr).output();
        assert!(output.unwrap().status.success(), "{name}");
        assert_eq!(place.losses(name), whole, "{name}");
        assert!(place.path(name).join("model/model.safetensors").exists());
    }
}

#[test]
fn a_run_draws_its_curves() {
    let place = Place::new();
    assert!(place.run(&["--run", "run"]).status.success());
    let svg = fs::read_to_string(place.path("run/loss.svg")).unwrap();
    assert!(svg.contains("validation") && svg.trim_end().ends_with("</svg>"));
}

#[test]
fn an_occupied_directory_is_an_error_and_unchanged() {
    let place = Place::new();
    assert!(place.run(&["--run", "run"]).status.success());
    let model = fs::read(place.path("run/model/model.safetensors")).unwrap();
    fs::remove_file(place.path("run/config.toml")).unwrap();
    let output = place.run(&["--run", "run", "--set", "train.seed=1"]);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("there is a run already"), "{message}");
    assert_eq!(
        fs::read(place.path("run/model/model.safetensors")).unwrap(),
        model
    );

    fs::create_dir(place.path("thesis")).unwrap();
    fs::write(place.path("thesis/chapter.tex"), "text").unwrap();
    let output = place.run(&["--run", "thesis"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("contains chapter.tex"), "{message}");
    assert_eq!(fs::read_dir(place.path("thesis")).unwrap().count(), 1);
}

#[test]
fn a_link_in_place_of_a_log_is_not_followed() {
    let place = Place::new();
    assert!(place.run(&["--run", "run"]).status.success());
    let samples = place.path("run/samples.txt");
    fs::write(place.path("mine"), "mine").unwrap();
    std::os::unix::fs::symlink(place.path("mine"), samples).unwrap();
    let more = [
        "--resume",
        "--run",
        "run",
        "--set",
        "train.steps=9",
        "--set",
        "train.sample_every=1",
    ];
    let output = place.run(&more);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        message.contains("is a symbolic link; allowed: a regular file"),
        "{message}"
    );
    assert_eq!(fs::read(place.path("mine")).unwrap(), b"mine");
}

/// Each of them would do all of the work, and the second would find the first's run.
#[cfg(not(feature = "mpi"))]
#[test]
fn processes_that_were_started_together_are_refused() {
    let place = Place::new();
    for name in ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"] {
        let output = place.train(&[]).env(name, "2").output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {message}");
        let expected = "2 processes were started together, and this iiet was built without MPI";
        assert!(message.contains(expected), "{name}: {message}");
    }
    // A step of a single task.
    let output = place.train(&[]).env("SLURM_STEP_NUM_TASKS", "1").output();
    assert!(output.unwrap().status.success());
}
