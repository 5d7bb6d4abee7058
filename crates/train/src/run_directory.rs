//! What a run leaves behind, and where.
//!
//! ```text
//! config.toml          the resolved configuration, with the git revision
//! metrics.jsonl        one object for each logged step
//! loss.svg             training and validation curves
//! samples.txt          text that the model wrote on the way
//! checkpoints/step-N/  model, optimiser, position and config.toml, for --resume
//! resumes.jsonl        one object for each resume: from where, and what was changed
//! model/               the trained model, in Hugging Face layout
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use iiet_files::write_file;
use serde::Serialize;

use crate::config::differences;
use crate::{Difference, RunConfig, TrainError, checkpoint};

/// For so long another process is given the chance to be gone.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// The directory of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDirectory {
    path: PathBuf,
}

impl RunDirectory {
    /// A directory for a new run, not created yet: the one given, which must not hold a run, or
    /// the first free one of `runs/NAME`, `runs/NAME-2`, ..
    ///
    /// # Errors
    ///
    /// [`TrainError::RunExists`].
    pub fn fresh(given: Option<&Path>, name: &str) -> Result<Self, TrainError> {
        let path = match given {
            Some(path) => path.to_owned(),
            None => candidates(name)
                .find(|path| !path.exists())
                .expect("invariant: the candidates are endless"),
        };
        let run = Self { path };
        if run.config().exists() {
            return Err(TrainError::RunExists { path: run.path });
        }
        Ok(run)
    }

    /// The directory of a run to go on with: the one given, or the last of `runs/NAME`,
    /// `runs/NAME-2`, ..
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

    /// The run in `runs/` that was written to last.
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

    /// The file that a resume goes on with unless another is given: the configuration of the newest
    /// checkpoint where it is whole, the run's own where there is no checkpoint. And what the run's
    /// own says otherwise, whether edited, damaged, or changed since that checkpoint.
    pub fn config_to_resume(&self) -> (PathBuf, Vec<Difference>) {
        let path = checkpoint::newest_config(self);
        let [used, own] = [&path, &self.config()].map(|path| RunConfig::load(path, &[]));
        let differences = match (used, own) {
            (Ok(used), Ok(own)) => differences(&used, &own).all(),
            _ => Vec::new(),
        };
        (path, differences)
    }

    /// Keeps other processes from working on the run as long as the result lives. The system
    /// releases it, however the process ends.
    pub(crate) fn lock(&self) -> Result<File, TrainError> {
        fs::create_dir_all(&self.path).map_err(TrainError::io(&self.path))?;
        let path = self.path.join(".lock");
        let lock = File::create(&path).map_err(TrainError::io(&path))?;
        // A process that was killed, or one that forks just now, may hold it a moment longer.
        for _ in 0..LOCK_TRIES {
            match lock.try_lock() {
                Err(TryLockError::WouldBlock) => sleep(LOCK_PAUSE),
                // A file system without locks can be trained on all the same.
                _ => return Ok(lock),
            }
        }
        Err(TrainError::RunBusy {
            path: self.path.clone(),
        })
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

    /// Creates the directory if need be and writes `config.toml`.
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
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()))
            .map_err(TrainError::io(&path))
    }
}

/// A line of `resumes.jsonl`.
#[derive(Debug, Serialize)]
pub(crate) struct Resume<'a> {
    /// The step that the checkpoint stands after.
    pub(crate) step: u64,
    /// Newer checkpoints that could not be used, and why.
    pub(crate) passed_over: &'a [String],
    /// Keys of the configuration that are not what they were.
    pub(crate) changed: &'a [Difference],
}

/// The text of `config.toml`, which reads back as the configuration; where it came from is in
/// comments.
pub(crate) fn config_text(config: &RunConfig) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let revision = git_revision().unwrap_or_else(|| "unknown".into());
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

/// The commit checked out in the current directory, marked if files differ from it.
fn git_revision() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changes.is_empty() {
        commit
    } else {
        format!("{commit} with changes")
    })
}
