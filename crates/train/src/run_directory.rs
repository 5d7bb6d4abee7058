//! What a run leaves behind, and where.
//!
//! ```text
//! config.toml          the resolved configuration, with the git revision
//! metrics.jsonl        one object for each logged step
//! loss.svg             training and validation curves
//! samples.txt          text that the model wrote on the way
//! checkpoints/step-N/  model, optimiser and position, for --resume
//! model/               the trained model, in Hugging Face layout
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{RunConfig, TrainError};

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
    /// [`TrainError::Io`] if there is no run in it.
    pub fn existing(given: Option<&Path>, name: &str) -> Result<Self, TrainError> {
        let last = || candidates(name).take_while(|path| path.exists()).last();
        let path = given.map(Path::to_owned).or_else(last);
        let path = path.unwrap_or_else(|| Path::new("runs").join(name));
        let run = Self { path };
        fs::metadata(run.config()).map_err(TrainError::io(run.config()))?;
        Ok(run)
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

    /// `checkpoints/`
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// `model/`
    pub fn model(&self) -> PathBuf {
        self.path.join("model")
    }

    /// Creates the directory if need be and writes `config.toml`, which reads back as the
    /// configuration; where it came from is in comments.
    pub(crate) fn write_config(&self, config: &RunConfig) -> Result<(), TrainError> {
        fs::create_dir_all(self.checkpoints()).map_err(TrainError::io(self.checkpoints()))?;
        let version = env!("CARGO_PKG_VERSION");
        let revision = git_revision().unwrap_or_else(|| "unknown".into());
        let text = format!(
            "# iiet {version}\n# git revision: {revision}\n\n{}",
            config.to_toml()
        );
        let partial = self.path.join("config.toml.partial");
        fs::write(&partial, text).map_err(TrainError::io(&partial))?;
        fs::rename(&partial, self.config()).map_err(TrainError::io(self.config()))
    }
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
