//! Invalid records, which stop a preparation or are skipped.

use std::fmt;
use std::path::PathBuf;

/// An invalid record and its location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// The file.
    pub path: PathBuf,
    /// The line of the decompressed text, or for Parquet, CSV and JSON arrays the row, from 1.
    pub line: Option<u64>,
    /// The problem.
    pub problem: Problem,
}

impl BadRecord {
    /// `FILE` or `FILE:LINE`.
    pub fn place(&self) -> String {
        match self.line {
            Some(line) => format!("{}:{line}", self.path.display()),
            None => self.path.display().to_string(),
        }
    }
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place(), self.problem)
    }
}

/// A problem with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Bytes that are not UTF-8.
    #[error("not UTF-8 at byte {offset} of the {of}")]
    NotUtf8 {
        /// The offset of the first such byte.
        offset: u64,
        /// The unit that contains it.
        of: &'static str,
    },
    /// A line that is not JSON.
    #[error("not JSON, column {column}: {message}")]
    NotJson {
        /// The column, from 1.
        column: usize,
        /// The reason.
        message: String,
    },
    /// A JSON value that is not an object, or a field that is not a string.
    #[error("{what} is {found}, expected {expected}")]
    WrongType {
        /// The invalid value.
        what: String,
        /// Its type.
        found: String,
        /// The expected type.
        expected: &'static str,
    },
    /// An object without the text field.
    #[error("no field \"{field}\"; the fields here are: {found}")]
    MissingField {
        /// The requested field.
        field: String,
        /// The existing fields.
        found: String,
    },
    /// A file without content.
    #[error("the file is empty")]
    EmptyFile,
    /// A record with an empty text.
    #[error("the text is empty")]
    EmptyText,
    /// A pair with a side that is empty or white space.
    #[error("the {side} is empty")]
    EmptySide {
        /// The side: `source` or `target`.
        side: &'static str,
    },
    /// A truncated compressed stream.
    #[error("the compressed stream ends too early; {lines} complete lines were read before that")]
    Truncated {
        /// The number of complete lines before the end.
        lines: u64,
    },
    /// A damaged compressed stream.
    #[error("the compressed stream is damaged after {lines} complete lines: {message}")]
    BadStream {
        /// The number of complete lines before the damage.
        lines: u64,
        /// The reason.
        message: String,
    },
    /// An input that exceeds a limit of the configuration.
    #[error("{what} of more than {allowed} {unit}; {key} = {allowed} is the limit")]
    OverLimit {
        /// What exceeds the limit.
        what: &'static str,
        /// The key of the limit.
        key: &'static str,
        /// The limit.
        allowed: u64,
        /// The unit of the limit.
        unit: &'static str,
    },
    /// A CSV file without a header, or a row that does not match it.
    #[error("not CSV: {message}")]
    NotCsv {
        /// The reason.
        message: String,
    },
    /// A file of a kind that holds no pairs.
    #[error("{found} holds no {pairs}; allowed: {allowed}, or a configuration without {keys}")]
    NoPairs {
        /// The kind of file.
        found: &'static str,
        /// What was to be read.
        pairs: &'static str,
        /// The kinds of file that hold it.
        allowed: &'static str,
        /// The keys of the configuration that ask for it.
        keys: &'static str,
    },
    /// A JSON file that is neither an array nor lines of objects.
    #[error("{found}, expected {expected}")]
    NotRecords {
        /// The content.
        found: String,
        /// The expected content.
        expected: &'static str,
    },
    /// A Parquet file that cannot be read.
    #[error("cannot read this Parquet file: {message}")]
    Parquet {
        /// The reason.
        message: String,
    },
}
