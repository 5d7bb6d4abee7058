//! The `[data.limits]` section: what a source may take of memory and disk.

use serde::{Deserialize, Serialize};

use crate::error::DataError;

/// Bounds on what is read, so that a small file cannot take any amount of memory or disk.
///
/// The defaults keep a preparation within some 300 MB beside the source's own size, and are above
/// what text corpora hold. A text file has no longest line: it is read in pieces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a record: a line of JSON Lines, an object of a JSON array, a row of CSV, the text of
    /// a Parquet row.
    pub record_bytes: u64,
    /// Bytes of a Parquet page after decompression, where the file is not half as large: writers put
    /// a thousand documents into a page, however long they are. (Row groups are read page by page, so
    /// they have no limit.)
    pub page_bytes: u64,
    /// Bytes of a Zstandard frame's window; 128 MiB is what `zstd` itself allows.
    pub window_bytes: u64,
    /// How many bytes of text a byte of a compressed file, or of Parquet, may become, once they are
    /// more than 64 MiB.
    pub expansion: u64,
}

/// So many bytes may come of any compressed file.
pub(crate) const EXPANSION_FREE_BYTES: u64 = 64 << 20;

impl Default for Limits {
    fn default() -> Self {
        Self {
            record_bytes: 32 << 20,
            page_bytes: 64 << 20,
            window_bytes: 128 << 20,
            expansion: 256,
        }
    }
}

impl Limits {
    /// The most bytes of a page in a Parquet file of so many bytes.
    pub(crate) fn page_bytes_of(&self, file_bytes: u64) -> u64 {
        self.page_bytes.max(file_bytes.saturating_mul(2))
    }

    pub(super) fn check(&self) -> Result<(), DataError> {
        let Self {
            record_bytes,
            page_bytes,
            window_bytes,
            expansion,
        } = *self;
        for (key, found) in [
            ("data.limits.record_bytes", record_bytes),
            ("data.limits.page_bytes", page_bytes),
            ("data.limits.window_bytes", window_bytes),
            ("data.limits.expansion", expansion),
        ] {
            // Beyond, sums of sizes would leave 64 bits.
            if !(1..=1 << 40).contains(&found) {
                return Err(DataError::Config {
                    key,
                    found: found.to_string(),
                    allowed: "1 to 2^40".to_owned(),
                });
            }
        }
        Ok(())
    }
}
