//! The rows of a task's data set, from files on disk.
//!
//! Files carry the field names that the data set has on the Hugging Face hub. Where they lie and
//! how they may be called is said in [`find`]; JSON Lines, Parquet and Arrow IPC are read.

mod arrow_lengths;
mod document;
mod find;
#[cfg(feature = "hub")]
mod hub;
mod json;
mod pairs;
mod read;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use document::Document;
pub use json::Json;
pub(crate) use pairs::{pairs, references, source};
pub use read::read;

use crate::error::EvalError;

/// The parts of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// What models are trained on.
    Train,
    /// What they are chosen by.
    Validation,
    /// What they are judged on.
    Test,
}

impl Split {
    /// What files of this part are called; the first is the hub's own name.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Train => &["train", "training"],
            Self::Validation => &["validation", "valid", "val", "dev"],
            Self::Test => &["test", "testing", "eval", "evaluation"],
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.names()[0])
    }
}

impl FromStr for Split {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let splits = [Self::Train, Self::Validation, Self::Test];
        let found = splits
            .into_iter()
            .find(|split| split.names().contains(&name));
        found.ok_or_else(|| "allowed: train, validation, test".to_owned())
    }
}

/// What a task's rows become in the harness before it asks about them: fields that are added.
pub type Adds = fn(&Document) -> Result<Vec<(String, Json)>, EvalError>;

/// A data set as the hub knows it, and the parts of it that the harness uses.
#[derive(Clone, Copy, Debug)]
pub struct HubData {
    /// `owner/name`.
    pub repository: &'static str,
    /// The name of the subset, `default` where there is but one.
    pub subset: &'static str,
    /// The parts named in the harness's configuration.
    pub splits: &'static [Split],
    /// What the harness adds to each row; part of a row's hash.
    pub adds: Option<Adds>,
}

/// The rows of a part, and where they are from.
pub(crate) struct Part {
    /// For a data set that is divided.
    pub split: Option<Split>,
    pub rows: Vec<Document>,
    /// The files, the repository on the hub, or the workspace.
    pub place: String,
}

impl HubData {
    fn has(&self, split: Split) -> bool {
        self.splits.contains(&split)
    }

    /// The part that is evaluated: test, else validation.
    pub fn evaluated(&self) -> Split {
        match self.has(Split::Test) {
            true => Split::Test,
            false => Split::Validation,
        }
    }

    /// The part that examples are drawn from: train, else validation, else test.
    pub fn examples(&self) -> Split {
        match (self.has(Split::Train), self.has(Split::Validation)) {
            (true, _) => Split::Train,
            (_, true) => Split::Validation,
            _ => Split::Test,
        }
    }

    /// Whether an example equal to the document asked about is taken out of its prompt. The harness
    /// does so where its configuration names no test part, whatever part the examples come from. It is
    /// also done where a part is evaluated that the harness would not, if the examples are from it.
    pub fn excludes_the_document(&self, evaluated: Split) -> bool {
        let unusual = evaluated != self.evaluated();
        !self.has(Split::Test) || unusual && evaluated == self.examples()
    }

    /// The part to evaluate. Without a wish it is [`evaluated`](Self::evaluated), or validation where
    /// the folder has that alone.
    ///
    /// # Errors
    /// [`EvalError::NoSplit`] if the data set has no such part, and as [`load`](Self::load).
    pub(crate) fn load_evaluated(
        &self,
        task: &str,
        data: Option<&Path>,
        wish: Option<Split>,
    ) -> Result<Part, EvalError> {
        let split = match wish {
            Some(wish) if self.has(wish) => wish,
            Some(wish) => {
                let names = self.splits.iter().map(Split::to_string);
                return Err(EvalError::NoSplit {
                    task: task.to_owned(),
                    split: wish,
                    allowed: names.collect::<Vec<_>>().join(", "),
                });
            }
            None => self.evaluated(),
        };
        let other = Split::Validation;
        if let (None, Some(data)) = (wish, data)
            && self.has(other)
            && self.files(task, data, split)?.is_empty()
            && !self.files(task, data, other)?.is_empty()
        {
            return self.load(task, Some(data), other);
        }
        self.load(task, data, split)
    }

    /// The files of a part in the folder `data/task`, none if there are none.
    fn files(&self, task: &str, data: &Path, split: Split) -> Result<Vec<PathBuf>, EvalError> {
        let unnamed = split == self.evaluated();
        find::find(&data.join(task), self.subset, split, unnamed)
    }

    /// Reads a part: from the folder `data/task`, else from the hub where that is compiled in.
    ///
    /// # Errors
    /// [`EvalError::NoData`] if it is nowhere, or an error about the file.
    pub(crate) fn load(
        &self,
        task: &str,
        data: Option<&Path>,
        split: Split,
    ) -> Result<Part, EvalError> {
        if let Some(data) = data {
            let files = self.files(task, data, split)?;
            if !files.is_empty() {
                let names = files.iter().map(|file| file.display().to_string());
                return Ok(Part {
                    split: Some(split),
                    rows: read_all(&files)?,
                    place: names.collect::<Vec<_>>().join(", "),
                });
            }
        }
        let missing = |remedy: String| EvalError::NoData {
            task: task.to_owned(),
            split,
            place: match data {
                Some(data) => format!("in {}", data.join(task).display()),
                None => "without --data DIR".to_owned(),
            },
            looked_for: find::looked_for(task, self.subset, split),
            remedy,
        };
        #[cfg(feature = "hub")]
        {
            let fetched = hub::fetch(self, split).map_err(|message| {
                missing(format!(
                    "fetching {} from the hub failed: {message}",
                    self.repository
                ))
            })?;
            Ok(Part {
                split: Some(split),
                rows: read_all(&fetched)?,
                place: format!("{} (subset {}) on the hub", self.repository, self.subset),
            })
        }
        #[cfg(not(feature = "hub"))]
        Err(missing(format!(
            "it is {} (subset {}) on the Hugging Face hub",
            self.repository, self.subset
        )))
    }
}

fn read_all(files: &[PathBuf]) -> Result<Vec<Document>, EvalError> {
    let mut rows = Vec::new();
    for file in files {
        rows.extend(read(file)?);
    }
    Ok(rows)
}
