//! The training run under test, and the comparison with its undisturbed result.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// Steps between checkpoints.
pub(super) const EVERY: u64 = 2;

/// The result of a run, as far as it must not depend on interruptions.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// For each step: step, tokens, loss, norm, learning rate and validation losses as text.
    lines: Vec<String>,
    weights: Vec<u8>,
    moments: Vec<u8>,
}

/// A run and everything it needs.
pub(super) struct Workload {
    iiet: PathBuf,
    /// What starts it: a program and its arguments.
    launcher: Vec<String>,
    place: PathBuf,
    /// What the names of its directories begin with.
    prefix: String,
    config: PathBuf,
    pub(super) steps: u64,
    pub(super) clean: PathBuf,
    pub(super) outcome: Outcome,
    pub(super) clean_seconds: f64,
    pub(super) epochs: f64,
}

impl Workload {
    /// A language model on two sources with several epochs of the smaller one. `more_train` are further keys of
    /// `[train]`, with the accumulation.
    pub(super) fn texts(
        workspace: &Path,
        (iiet, launcher): (&Path, &[String]),
        place: &Path,
        steps: u64,
        more_train: &str,
    ) -> anyhow::Result<Self> {
        let (prose, code) = (place.join("prose"), place.join("code"));
        copy_files(&workspace.join("docs"), &prose, "md")?;
        for library in ["ode", "blocks", "data"] {
            copy_files(
                &workspace.join("crates").join(library).join("src"),
                &code,
                "rs",
            )?;
        }
        let more = format!(
            r#"
n_layers = 3
seq_len = 64
solver = {{ name = "iterative_implicit_euler", iterations = 1 }}

[data]
source = [{{ path = '{}', weight = 0.7 }}, {{ path = '{}', weight = 0.3 }}]
cache = '{}'
vocab_size = 1024

[[train.stages]]
solver = "explicit_euler"
share = 0.5

[[train.stages]]
solver = "iterative_implicit_euler"
share = 0.5

[train]
batch = 4
{more_train}
"#,
            prose.display(),
            code.display(),
            place.join("cache").display(),
        );
        Self::prepare((iiet, launcher), place, "", &more, steps)
    }

    /// An encoder-decoder on lines and the same lines backwards, with dropout and batches by tokens.
    pub(super) fn sequences(
        workspace: &Path,
        iiet: &Path,
        place: &Path,
        steps: u64,
    ) -> anyhow::Result<Self> {
        let [source, target] = ["lines.txt", "backwards.txt"].map(|name| place.join(name));
        let text = fs::read_to_string(workspace.join("docs/guide.md")).context("docs/guide.md")?;
        let lines = text.lines().map(|line| line.split_whitespace());
        let lines: Vec<Vec<&str>> = lines
            .map(Iterator::collect)
            .filter(|words: &Vec<&str>| (3..20).contains(&words.len()))
            .collect();
        let joined = |lines: Vec<Vec<&str>>| -> String {
            lines.iter().map(|words| words.join(" ") + "\n").collect()
        };
        let backwards = lines.iter().map(|words| words.iter().rev().copied());
        fs::write(&target, joined(backwards.map(Iterator::collect).collect()))?;
        fs::write(&source, joined(lines))?;
        let more = format!(
            r#"
n_layers = 2
seq_len = 96
solver = "explicit_euler"

[model.encoder]
n_layers = 2
solver = {{ name = "iterative_implicit_euler", iterations = 1 }}

[data]
source = {{ source = '{}', target = '{}' }}
cache = '{}'
vocab_size = 512

[[train.stages]]
solver = "explicit_euler"
encoder = "explicit_euler"
share = 0.5

[[train.stages]]
solver = "explicit_euler"
share = 0.5

[train]
accumulation = 2
batch_tokens = 256
label_smoothing = 0.1
dropout = {{ residual = 0.1, attention = 0.1, activation = 0.1 }}
"#,
            source.display(),
            target.display(),
            place.join("cache").display(),
        );
        Self::prepare((iiet, &[]), place, "sequences-", &more, steps)
    }

    /// Trains once without disturbance and keeps the result. `more` are the keys that differ, beginning with
    /// those of `[model]` and ending with those of `[train]`.
    fn prepare(
        (iiet, launcher): (&Path, &[String]),
        place: &Path,
        prefix: &str,
        more: &str,
        steps: u64,
    ) -> anyhow::Result<Self> {
        let config = place.join(format!("{prefix}torture.toml"));
        let text = format!(
            r#"
[model]
d_model = 64
d_ff = 176
n_heads = 2
{more}
steps = {steps}
lr = 3e-3
warmup = 5
seed = 7
log_every = 1
eval_every = 1000
eval_tokens = 512
checkpoint_every = {EVERY}
keep = 2
"#
        );
        fs::write(&config, text).context("cannot write the configuration")?;
        let clean = place.join(format!("{prefix}clean"));
        let mut workload = Self {
            iiet: iiet.to_owned(),
            launcher: launcher.to_vec(),
            place: place.to_owned(),
            prefix: prefix.to_owned(),
            config,
            steps,
            clean: clean.clone(),
            outcome: Outcome {
                lines: Vec::new(),
                weights: Vec::new(),
                moments: Vec::new(),
            },
            clean_seconds: 0.0,
            epochs: 0.0,
        };
        let started = Instant::now();
        let output = workload.run(workload.start(&clean))?;
        ensure!(output.success, "the clean run failed:\n{}", output.errors);
        workload.clean_seconds = started.elapsed().as_secs_f64();
        workload.outcome = workload.outcome_of(&clean)?;
        workload.epochs = most_epochs(&output.errors).unwrap_or(0.0);
        ensure!(
            workload.outcome.lines.len() as u64 == steps,
            "the clean run logged {} of {steps} steps",
            workload.outcome.lines.len()
        );
        Ok(workload)
    }

    /// A path for a new directory.
    pub(super) fn folder(&self, name: &str) -> PathBuf {
        self.place.join(format!("{}{name}", self.prefix))
    }

    /// The directory of prepared corpora.
    pub(super) fn cache(&self) -> PathBuf {
        self.place.join("cache")
    }

    /// The configuration file.
    pub(super) fn config(&self) -> &Path {
        &self.config
    }

    /// `iiet` with arguments.
    pub(super) fn iiet<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = match self.launcher.split_first() {
            None => Command::new(&self.iiet),
            Some((program, rest)) => {
                let mut command = Command::new(program);
                command.args(rest).arg(&self.iiet);
                command
            }
        };
        command.args(arguments);
        command
    }

    /// The command that starts a run.
    pub(super) fn start(&self, run: &Path) -> Command {
        let mut command = self.iiet(["train", "--config"]);
        command.arg(&self.config).arg("--run").arg(run);
        command
    }

    /// The command that resumes it, without a configuration, as a user would.
    pub(super) fn resume(&self, run: &Path) -> Command {
        let mut command = self.iiet(["train", "--resume", "--run"]);
        command.arg(run);
        command
    }

    /// Runs a command to its end. No command may panic.
    pub(super) fn run(&self, mut command: Command) -> anyhow::Result<Ended> {
        let Output { status, stderr, .. } = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .with_context(|| format!("cannot run {command:?}"))?;
        let errors = String::from_utf8_lossy(&stderr).into_owned();
        ensure!(
            !errors.contains("panicked"),
            "{command:?} panicked:\n{errors}"
        );
        ensure!(status.code().is_some(), "{command:?}: {status}\n{errors}");
        Ok(Ended {
            success: status.success(),
            errors,
        })
    }

    /// A copy of the clean run before its last checkpoint.
    pub(super) fn almost_complete(&self, name: &str) -> anyhow::Result<PathBuf> {
        let run = self.complete(name)?;
        fs::remove_dir_all(self.checkpoint(&run, 0))?;
        fs::remove_dir_all(run.join("model"))?;
        Ok(run)
    }

    /// A copy of the clean run.
    pub(super) fn complete(&self, name: &str) -> anyhow::Result<PathBuf> {
        let run = self.folder(name);
        if run.exists() {
            fs::remove_dir_all(&run)?;
        }
        copy(&self.clean, &run)?;
        Ok(run)
    }

    /// The checkpoint `back` before the last of a run's `steps`.
    pub(super) fn checkpoint(&self, run: &Path, back: u64) -> PathBuf {
        let step = self.steps - back * EVERY;
        run.join("checkpoints").join(format!("step-{step}"))
    }

    /// Fails unless a run has the clean run's result.
    pub(super) fn compare(&self, run: &Path, what: &str) -> anyhow::Result<()> {
        let found = self.outcome_of(run)?;
        for (line, expected) in found.lines.iter().zip(&self.outcome.lines) {
            ensure!(line == expected, "{what}: {line}, the clean run {expected}");
        }
        if found != self.outcome {
            bail!("{what}: the lines agree, their number or the weights do not");
        }
        Ok(())
    }

    fn outcome_of(&self, run: &Path) -> anyhow::Result<Outcome> {
        let read = |path: PathBuf| {
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let metrics = String::from_utf8(read(run.join("metrics.jsonl"))?)?;
        Ok(Outcome {
            lines: metrics.lines().map(timeless).collect::<Result<_, _>>()?,
            weights: read(run.join("model/model.safetensors"))?,
            moments: moments(&self.checkpoint(run, 0))?,
        })
    }
}

/// The moments of a checkpoint: one file, or one of each process.
fn moments(checkpoint: &Path) -> anyhow::Result<Vec<u8>> {
    let files = contents(checkpoint)?.into_iter();
    let of_optimizer = files.filter(|(path, _)| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with("optimizer")
    });
    let bytes: Vec<u8> = of_optimizer.flat_map(|(_, bytes)| bytes).collect();
    ensure!(!bytes.is_empty(), "{}: no moments", checkpoint.display());
    Ok(bytes)
}

/// The result of a command.
pub(super) struct Ended {
    pub(super) success: bool,
    pub(super) errors: String,
}

/// The largest of the numbers before ` epochs of`.
fn most_epochs(errors: &str) -> Option<f64> {
    let numbers = errors.split(" epochs of").filter_map(|before| {
        let word = before.rsplit([' ', '(']).next()?;
        word.parse::<f64>().ok()
    });
    numbers.reduce(f64::max)
}

/// A line of `metrics.jsonl` without the values that depend on time.
fn timeless(line: &str) -> anyhow::Result<String> {
    let record: Value = serde_json::from_str(line).context("metrics.jsonl")?;
    let fields = [
        "step",
        "tokens",
        "loss",
        "bits_per_byte",
        "lr",
        "grad_norm",
        "evaluations",
        "validation_loss",
        "validation_by_source",
    ];
    let fields = fields.map(|name| format!("{name} {}", record[name]));
    Ok(fields.join(", "))
}

/// Copies the files with an extension from a directory and its subdirectories into one directory.
fn copy_files(from: &Path, to: &Path, ending: &str) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() {
            copy_files(&path, &to.join(name), ending)?;
        } else if path.extension().is_some_and(|found| found == ending) {
            fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}

/// Copies a directory recursively.
pub(super) fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let path = entry?.path();
        let to = to.join(path.file_name().unwrap_or_default());
        match path.is_dir() {
            true => copy(&path, &to)?,
            false => fs::copy(&path, &to).map(drop)?,
        }
    }
    Ok(())
}

/// The content of every file in a directory.
pub(super) fn contents(folder: &Path) -> anyhow::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        match path.is_dir() {
            true => found.extend(contents(&path)?),
            false => found.push((path.clone(), fs::read(&path)?)),
        }
    }
    found.sort();
    Ok(found)
}
