//! The rows of a task's data set, from files on disk.
//!
//! Files carry the field names that the data set has on the Hugging Face hub. Where they lie and
//! how they may be called is said in [`find`]; JSON Lines, Parquet and Arrow IPC are read.

mod arrow_lengths;
mod document;
mod find;
#[cfg(feature = "hub")]
mod hub;
mod read;

use std::fmt;
use std::path::Path;

pub use document::Document;
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

/// A data set as the hub knows it, and the parts of it that the harness uses.
#[derive(Clone, Copy, Debug)]
pub struct HubData {
    /// `owner/name`.
    pub repository: &'static str,
    /// The name of the subset, `default` where there is but one.
    pub subset: &'static str,
    /// The parts named in the harness's configuration.
    pub splits: &'static [Split],
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
    /// does so where its configuration names no test part, whatever part the examples come from.
    pub fn excludes_the_document(&self) -> bool {
        !self.has(Split::Test)
    }

    /// Reads a part: from the folder `data/task`, else from the hub where that is compiled in.
    ///
    /// # Errors
    /// [`EvalError::NoData`] if it is nowhere, or an error about the file.
    pub fn load(
        &self,
        task: &str,
        data: Option<&Path>,
        split: Split,
    ) -> Result<Vec<Document>, EvalError> {
        let folder = data.map(|data| data.join(task));
        if let Some(folder) = &folder {
            let files = find::find(folder, self.subset, split, split == self.evaluated())?;
            if !files.is_empty() {
                return read_all(&files);
            }
        }
        let missing = |remedy: String| EvalError::NoData {
            task: task.to_owned(),
            split,
            place: match &folder {
                Some(folder) => format!("in {}", folder.display()),
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
            read_all(&fetched)
        }
        #[cfg(not(feature = "hub"))]
        Err(missing(format!(
            "it is {} (subset {}) on the Hugging Face hub",
            self.repository, self.subset
        )))
    }
}

fn read_all(files: &[std::path::PathBuf]) -> Result<Vec<Document>, EvalError> {
    let mut rows = Vec::new();
    for file in files {
        rows.extend(read(file)?);
    }
    Ok(rows)
}
