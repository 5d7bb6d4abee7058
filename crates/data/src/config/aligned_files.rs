//! Two text files of which line `i` of one belongs to line `i` of the other.

use serde::{Deserialize, Serialize};

use crate::error::DataError;

/// Two aligned text files, as translation corpora are published: `{ source = "train.en", target = "train.de" }`.
///
/// Names may end in `.gz` or `.zst`; other extensions have no meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlignedFiles {
    /// The path of the sources, one per line.
    pub source: String,
    /// The path of the targets; as many lines.
    pub target: String,
}

impl AlignedFiles {
    /// Checks that two files are named.
    pub(super) fn check(&self, key: &'static str) -> Result<(), DataError> {
        let Self { source, target } = self;
        if source.is_empty() || target.is_empty() || source == target {
            return Err(DataError::Config {
                key,
                found: format!("{{ source = {source:?}, target = {target:?} }}"),
                allowed: "the paths of two files".to_owned(),
            });
        }
        Ok(())
    }
}
