//! The files of a run.
//!
//! ```text
//! config.toml          the resolved configuration, with the git revision
//! metrics.jsonl        one object per logged step
//! loss.svg             training and validation curves, drawn by the observer of the run
//! samples.txt          samples of text during training
//! checkpoints/step-N/  model, optimiser, position and config.toml, for --resume
//! resumes.jsonl        one object per resume: from where, and what was changed
//! model/               the trained model, in Hugging Face layout
//! ```

mod claim;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use iiet_files::{append_regular, write_file};
use serde::Serialize;

pub use self::claim::ClaimedRun;
use crate::config::differences;
use crate::{Difference, RunConfig, TrainError, checkpoint};

/// The files of a run directory: if one of them exists, there is a run.
const PARTS: [&str; 7] = [
    "config.toml",
    "metrics.jsonl",
    "loss.svg",
    "samples.txt",
    "checkpoints",
    "resumes.jsonl",
    "model",
];

/// The directory of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDirectory {
    path: PathBuf,
}

impl RunDirectory {
    /// The directory of a run to resume: the one given, or the last of `runs/NAME`, `runs/NAME-2`,
    /// ..
    ///
    /// # Errors
    ///
    /// [`TrainError::NoRun`].
    pub fn existing(given: Option<&Path>, name: &str) -> Result<Self, TrainError> {
        let last = || candidates(name).take_while(|path| path.exists()).last();
        let path = given.map(Path::to_owned).or_else(last);
        let path = path.unwrap_or_else(|| Path::new("runs").join(name));
        let run = Self { path };
        match run.config().exists() || run.checkpoints().exists() {
            true => Ok(run),
            false => Err(TrainError::NoRun { path: run.path }),
        }
    }

    /// The most recently written run in `runs/`.
    ///
    /// # Errors
    ///
    /// [`TrainError::NoRun`] if there is none.
    pub fn last() -> Result<Self, TrainError> {
        let folder = Path::new("runs");
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let runs = entries.map(|entry| Self { path: entry.path() });
        let dated = runs.filter(|run| run.config().is_file()).map(|run| {
            let written = [run.metrics(), run.checkpoints(), run.config()].map(|path| {
                let metadata = fs::metadata(path).ok();
                metadata.and_then(|metadata| metadata.modified().ok())
            });
            (written.into_iter().max().flatten(), run.path.clone())
        });
        let path = folder.to_owned();
        let (_, last) = dated.max().ok_or(TrainError::NoRun { path })?;
        Ok(Self { path: last })
    }

    /// The configuration that a resume uses by default: that of the newest checkpoint if it is
    /// complete, or the run's own if there is no checkpoint. The second result lists where the
    /// run's own differs, because it was edited, damaged, or changed since that checkpoint.
    pub fn config_to_resume(&self) -> (PathBuf, Vec<Difference>) {
        let path = checkpoint::newest_config(self);
        let [used, own] = [&path, &self.config()].map(|path| RunConfig::load(path, &[]));
        let differences = match (used, own) {
            (Ok(used), Ok(own)) => differences(&used, &own).all(),
            _ => Vec::new(),
        };
        (path, differences)
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `config.toml`
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// `metrics.jsonl`
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// `loss.svg`
    pub fn curve(&self) -> PathBuf {
        self.path.join("loss.svg")
    }

    /// `samples.txt`
    pub fn samples(&self) -> PathBuf {
        self.path.join("samples.txt")
    }

    /// `resumes.jsonl`
    pub fn resumes(&self) -> PathBuf {
        self.path.join("resumes.jsonl")
    }

    /// `checkpoints/`
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// `model/`
    pub fn model(&self) -> PathBuf {
        self.path.join("model")
    }

    /// Creates the directory if necessary and writes `config.toml`.
    pub(crate) fn write_config(&self, text: &str) -> Result<(), TrainError> {
        fs::create_dir_all(self.checkpoints()).map_err(TrainError::io(self.checkpoints()))?;
        write_file(&self.config(), |file| file.write_all(text.as_bytes()))
            .map(drop)
            .map_err(TrainError::io(self.config()))
    }

    /// Appends to `resumes.jsonl`.
    pub(crate) fn log_resume(&self, resume: &Resume<'_>) -> Result<(), TrainError> {
        let line = serde_json::to_string(resume).expect("invariant: plain data serialises");
        let path = self.resumes();
        append_regular(&path)
            .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()))
            .map_err(TrainError::io(&path))
    }
}

/// A line of `resumes.jsonl`.
#[derive(Debug, Serialize)]
pub(crate) struct Resume<'a> {
    /// The step of the checkpoint.
    pub(crate) step: u64,
    /// Newer checkpoints that could not be used, and why.
    pub(crate) passed_over: &'a [String],
    /// Keys of the configuration that have changed.
    pub(crate) changed: &'a [Difference],
}

/// The text of `config.toml`, which parses back to the configuration; version and git revision are
/// in comments.
pub(crate) fn config_text(config: &RunConfig, revision: Option<&str>) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let revision = revision.unwrap_or("unknown");
    format!(
        "# iiet {version}\n# git revision: {revision}\n\n{}",
        config.to_toml()
    )
}

/// `runs/NAME`, `runs/NAME-2`, `runs/NAME-3`, ..
fn candidates(name: &str) -> impl Iterator<Item = PathBuf> {
    let numbered = move |i: u64| match i {
        1 => PathBuf::from(format!("runs/{name}")),
        _ => PathBuf::from(format!("runs/{name}-{i}")),
    };
    (1..).map(numbered)
}
