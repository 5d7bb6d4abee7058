//! The `[data.limits]` section: limits on memory and disk space.

use serde::{Deserialize, Serialize};

use crate::error::DataError;

/// Limits on input, so that a small file cannot cause unbounded use of memory or disk space.
///
/// With the defaults, a preparation takes about 300 MB in addition to the source's own size; text corpora do
/// not normally exceed them. Lines of text files are not limited: they are read in pieces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes per record: a line of JSON Lines, an object of a JSON array, a row of CSV, the text of a Parquet
    /// row.
    pub record_bytes: u64,
    /// Bytes per Parquet page after decompression, unless the file is more than twice as large: writers put a
    /// thousand documents into a page, independent of their length. (Row groups are read page by page, so
    /// they have no limit.)
    pub page_bytes: u64,
    /// Bytes of a Zstandard frame's window; 128 MiB is the default limit of `zstd`.
    pub window_bytes: u64,
    /// The maximum expansion of compressed files and of Parquet, in bytes of text per byte of file, applied
    /// above 64 MiB of text.
    pub expansion: u64,
}

/// Output below this size is allowed for every compressed file.
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
    /// The maximum number of bytes per page in a Parquet file of the given size.
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
            // Larger values would overflow sums of sizes.
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
