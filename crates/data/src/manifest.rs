//! `manifest.json` of a prepared folder: what it was made of, for people and for reuse.

use std::path::Path;

use iiet_files::read_regular;
use serde::{Deserialize, Serialize};

use crate::config::DataConfig;
use crate::error::{BadRecord, DataError};
use crate::source::cargo_deps::CargoSummary;

/// At most so many places of skipped records are kept.
const PLACES_KEPT: usize = 20;

/// What a prepared folder was made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the folder's layout.
    pub format: u32,
    /// Hash of all that determines the result, in hexadecimal.
    pub key: String,
    /// The configuration.
    pub config: DataConfig,
    /// Files read.
    pub files: u64,
    /// The training part.
    pub train: Counts,
    /// The part held out.
    pub validation: Counts,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// blake3 of `tokenizer.json`, in hexadecimal.
    pub tokenizer: String,
    /// What the default corpus holds, where that is the source.
    pub cargo: Option<CargoSummary>,
    /// Records left out because they could not be read.
    pub skipped: SkipReport,
}

/// The size of a token file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Documents.
    pub documents: u64,
    /// Tokens, document ends included.
    pub tokens: u64,
    /// Bytes of text that the tokens stand for.
    pub text_bytes: u64,
}

/// Records left out under `on_error = "skip"`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkipReport {
    /// All of them.
    pub count: u64,
    /// The first 20.
    pub first: Vec<Skipped>,
}

/// A record left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// `FILE` or `FILE:LINE`.
    pub place: String,
    /// What is wrong there.
    pub reason: String,
}

impl SkipReport {
    pub(crate) fn add(&mut self, record: &BadRecord) {
        self.count += 1;
        if self.first.len() < PLACES_KEPT {
            self.first.push(Skipped {
                place: record.place(),
                reason: record.problem.to_string(),
            });
        }
    }
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// If the file cannot be read or is not a manifest.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let bytes = read_regular(path).map_err(DataError::io(path))?;
        serde_json::from_slice(&bytes).map_err(|error| DataError::Inconsistent {
            path: path.to_path_buf(),
            what: "the manifest",
            found: error.to_string(),
            expected: "a manifest.json of this version".to_owned(),
        })
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        let mut json =
            serde_json::to_vec_pretty(self).expect("invariant: a manifest has only string keys");
        json.push(b'\n');
        json
    }
}
