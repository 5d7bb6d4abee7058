//! `manifest.json` of a prepared directory: what it was made from, for users and for reuse.

use std::path::Path;

use iiet_files::read_regular;
use serde::{Deserialize, Serialize};

use crate::config::DataConfig;
use crate::error::{BadRecord, DataError};
use crate::source::cargo_deps::CargoSummary;
use crate::source::cargo_docs::DocsSummary;

/// The maximum number of locations of skipped records that are kept.
const PLACES_KEPT: usize = 20;

/// What a prepared directory was made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the directory's layout.
    pub format: u32,
    /// Hash of all inputs that determine the result, in hexadecimal.
    pub key: String,
    /// The configuration.
    pub config: DataConfig,
    /// Number of files read.
    pub files: u64,
    /// The training part.
    pub train: Counts,
    /// The held-out part.
    pub validation: Counts,
    /// Vocabulary size.
    pub vocab_size: usize,
    /// blake3 of `tokenizer.json`, in hexadecimal.
    pub tokenizer: String,
    /// The content of the default corpus, if that is the source or pairs are made from it.
    pub cargo: Option<CargoSummary>,
    /// The pairs of code and documentation, if that is the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docs: Option<DocsSummary>,
    /// Invalid records that were skipped.
    pub skipped: SkipReport,
}

/// The size of a token file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Number of documents.
    pub documents: u64,
    /// Number of tokens, including document ends.
    pub tokens: u64,
    /// Bytes of text that the tokens represent.
    pub text_bytes: u64,
}

/// Records skipped with `on_error = "skip"`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkipReport {
    /// Number of all.
    pub count: u64,
    /// The first 20.
    pub first: Vec<Skipped>,
}

/// A skipped record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// `FILE` or `FILE:LINE`.
    pub place: String,
    /// The problem.
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
