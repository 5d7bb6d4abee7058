//! A temporary directory for training runs.

#![allow(dead_code, reason = "each test file uses a part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use iiet_train::{
    ClaimedRun, Devices, NextToken, Record, RunConfig, RunOptions, Summary, TrainError, train,
};
use tempfile::TempDir;

pub static RUNNING: AtomicBool = AtomicBool::new(false);
pub static INTERRUPTED: AtomicBool = AtomicBool::new(true);

/// A directory with a corpus and a configuration.
pub struct Place {
    folder: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let corpus = folder.path().join("corpus");
        fs::create_dir(&corpus).unwrap();
        for i in 0..30 {
            let lines =
                (0..20).map(|j| format!("The {i}th text says that {i} and {j} make {}.\n", i + j));
            fs::write(
                corpus.join(format!("{i:02}.txt")),
                lines.collect::<String>(),
            )
            .unwrap();
        }
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn config(&self, sets: &[&str]) -> Result<RunConfig, TrainError> {
        let file = self.path("config.toml");
        let text = format!(
            r#"
            [model]
            d_model = 16
            d_ff = 32
            n_layers = 2
            n_heads = 2
            seq_len = 16
            solver = {{ name = "iterative_implicit_euler", iterations = 1 }}

            [data]
            source = '{}'
            cache = '{}'
            vocab_size = 300
            validation = 0.1

            [train]
            steps = 12
            batch = 4
            lr = 1e-2
            warmup = 2
            log_every = 1
            eval_every = 6
            checkpoint_every = 6
            "#,
            self.path("corpus").display(),
            self.path("cache").display()
        );
        fs::write(&file, text).unwrap();
        let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
        RunConfig::load(&file, &sets)
    }

    pub fn run(&self, name: &str, sets: &[&str]) -> Result<Summary, TrainError> {
        self.go(name, sets, false, &RUNNING)
    }

    pub fn resume(&self, name: &str, sets: &[&str]) -> Result<Summary, TrainError> {
        self.go(name, sets, true, &RUNNING)
    }

    pub fn go(
        &self,
        name: &str,
        sets: &[&str],
        resume: bool,
        interrupt: &AtomicBool,
    ) -> Result<Summary, TrainError> {
        let devices = Devices::one(Device::default());
        self.go_on(&devices, name, sets, resume, interrupt)
    }

    pub fn go_on(
        &self,
        devices: &Devices,
        name: &str,
        sets: &[&str],
        resume: bool,
        interrupt: &AtomicBool,
    ) -> Result<Summary, TrainError> {
        let options = RunOptions {
            run: match resume {
                true => ClaimedRun::existing(Some(&self.path(name)), "")?,
                false => ClaimedRun::new(Some(&self.path(name)), "")?,
            },
            revision: None,
            on_host: true,
            objective: &NextToken,
            interrupt,
            progress: &(),
            observer: &mut (),
        };
        train(&self.config(sets)?, options, devices)
    }

    /// A new run of any configuration.
    pub fn train(&self, config: &RunConfig, name: &str) -> Result<Summary, TrainError> {
        let options = RunOptions {
            run: ClaimedRun::new(Some(&self.path(name)), "")?,
            revision: None,
            on_host: true,
            objective: &NextToken,
            interrupt: &RUNNING,
            progress: &(),
            observer: &mut (),
        };
        train(config, options, &Devices::one(Device::default()))
    }

    pub fn records(&self, name: &str) -> Vec<Record> {
        let text = fs::read_to_string(self.path(name).join("metrics.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The loss column of the metrics, as text.
    pub fn losses(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(name).join("metrics.jsonl")).unwrap();
        let column = |line: &str| {
            let start = line.find("\"loss\":").unwrap();
            line[start..start + line[start..].find(',').unwrap()].to_owned()
        };
        text.lines().map(column).collect()
    }
}

pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Copies a directory and everything below it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        match from.is_dir() {
            true => copy(&from, &to),
            false => fs::copy(&from, &to).map(drop).unwrap(),
        }
    }
}

/// The content of every file in a directory except the lock.
pub fn bytes_below(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for name in names(dir) {
        let path = dir.join(name);
        match path.is_dir() {
            true => found.extend(bytes_below(&path)),
            false => found.push((path.clone(), fs::read(&path).unwrap())),
        }
    }
    found
}
