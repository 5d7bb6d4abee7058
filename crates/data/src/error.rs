//! What can go wrong with data, with the place and the values.

use std::fmt;
use std::path::PathBuf;

/// Every error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A value of the configuration is not allowed.
    #[error("{key} = {found} is not allowed; allowed: {allowed}")]
    Config {
        /// The key, with its section.
        key: &'static str,
        /// What was found.
        found: String,
        /// What is allowed.
        allowed: String,
    },
    /// The system refused to read or write a file.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A record of the source cannot be used; `on_error = "skip"` leaves such records out.
    #[error("{0}; on_error = \"skip\" leaves such records out and counts them")]
    Bad(BadRecord),
    /// A file named in the configuration has an ending that no reader takes.
    #[error("{path}: no reader for this kind of file; known endings: {known}. A file without an ending is read as text", path = path.display())]
    UnknownKind {
        /// The file or folder.
        path: PathBuf,
        /// The endings that readers take.
        known: String,
    },
    /// A folder holds no file that a reader takes.
    #[error(
        "{path}: nothing to read in this folder ({other_files} files with other endings); endings looked for: {known}",
        path = path.display()
    )]
    NothingToRead {
        /// The file or folder.
        path: PathBuf,
        /// Files with other endings.
        other_files: u64,
        /// The endings that readers take.
        known: String,
    },
    /// `cargo metadata` failed, so the default corpus cannot be found.
    #[error(
        "cannot list the locked dependencies with `cargo metadata --locked`: {message}; run inside a workspace whose Cargo.lock is current, after `cargo fetch`, or set data.source to a path"
    )]
    CargoMetadata {
        /// The reason.
        message: String,
    },
    /// One side of the split would hold no tokens.
    #[error(
        "the {split} part would be empty: {documents} documents, {text_bytes} bytes of text, {held_out} of them held out; {remedy}"
    )]
    EmptySplit {
        /// Which part.
        split: &'static str,
        /// Documents of the source.
        documents: u64,
        /// Bytes of its text.
        text_bytes: u64,
        /// Bytes of text held out.
        held_out: u64,
        /// What to do.
        remedy: &'static str,
    },
    /// The source gave other text on a second reading.
    #[error(
        "the source changed while it was being read: first {before} bytes of text in {documents_before} documents, then {after} in {documents_after}"
    )]
    SourceChanged {
        /// Bytes of text, first.
        before: u64,
        /// Bytes of text, then.
        after: u64,
        /// Documents, first.
        documents_before: u64,
        /// Documents, then.
        documents_after: u64,
    },
    /// A file of the source was written to while the corpus was being prepared.
    #[error(
        "{path}: the source changed while it was being prepared; prepare it again when nothing writes to it",
        path = path.display()
    )]
    SourceRewritten {
        /// The file or folder.
        path: PathBuf,
    },
    /// A tokenizer cannot be read, trained or used.
    #[error("tokenizer{at}: {message}", at = place(path))]
    Tokenizer {
        /// The file or folder.
        path: Option<PathBuf>,
        /// The reason.
        message: String,
    },
    /// The file beside a model's weights that names a task cannot be read.
    #[error("{path}: no task with its options: {message}", path = path.display())]
    TaskFile {
        /// The file.
        path: PathBuf,
        /// The reason.
        message: String,
    },
    /// A token id is outside the vocabulary.
    #[error("token id {token}{at} is outside the vocabulary of {vocab_size}", at = place(path))]
    TokenOutOfRange {
        /// The file or folder.
        path: Option<PathBuf>,
        /// The id.
        token: u32,
        /// Ids are below it.
        vocab_size: usize,
    },
    /// A token file's bytes are not what its format allows.
    #[error("{path}: damaged or not a token file: {what} is {found}, expected {expected}", path = path.display())]
    Damaged {
        /// The file or folder.
        path: PathBuf,
        /// What it is about.
        what: &'static str,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A token file has another length than when it was opened.
    #[error(
        "{path}: the file has {found} bytes and had {expected} when it was opened; another process changed it. Prepare the corpus again with `data prepare`",
        path = path.display()
    )]
    ChangedWhileOpen {
        /// The file or folder.
        path: PathBuf,
        /// What was found.
        found: u64,
        /// What was expected.
        expected: u64,
    },
    /// A prepared folder's parts do not belong together.
    #[error("{path}: {what} is {found}, expected {expected}; delete the folder to prepare it again", path = path.display())]
    Inconsistent {
        /// The file or folder.
        path: PathBuf,
        /// What it is about.
        what: &'static str,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A range of tokens, or a window, outside the file was asked for.
    #[error("{what} {start}..{end} asked for, there are {len}")]
    OutOfRange {
        /// What it is about.
        what: &'static str,
        /// The first asked for.
        start: u64,
        /// The one after the last asked for.
        end: u64,
        /// How many there are.
        len: u64,
    },
    /// Examples that do not fit into a row.
    #[error(
        "{path}: {count} of {of} examples have more than {allowed} tokens, one more than model.seq_len: number {number} has {tokens}; raise model.seq_len or shorten them",
        path = path.display(), number = index + 1
    )]
    ExamplesTooLong {
        /// The file or folder.
        path: PathBuf,
        /// Examples that are too long.
        count: u64,
        /// Examples in all.
        of: u64,
        /// The first of them, from 0.
        index: u64,
        /// Its tokens.
        tokens: u64,
        /// The most that fit.
        allowed: u64,
    },
    /// An example that is no row of a batch.
    #[error(
        "a row of {what}; allowed: as many of each, at most {seq}, and weights that are finite and not negative"
    )]
    Row {
        /// What it is about.
        what: String,
        /// Tokens of a row.
        seq: usize,
    },
    /// The file is too short to make one window.
    #[error("{path}: {tokens} tokens, at least 2 are needed to predict one from another", path = path.display())]
    TooFewTokens {
        /// The file or folder.
        path: PathBuf,
        /// How many it has.
        tokens: u64,
    },
    /// A Parquet file cannot be read.
    #[error("{path}: cannot read this Parquet file: {message}", path = path.display())]
    Parquet {
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        message: String,
    },
    /// A folder is no prepared corpus and holds none.
    #[error(
        "{path}: neither a token file nor a prepared corpus (a folder with manifest.json), nor a folder that holds prepared corpora",
        path = path.display()
    )]
    NotPrepared {
        /// The file or folder.
        path: PathBuf,
    },
    /// The system has no memory left for something of a size that was known.
    #[error("no memory for {what}, {bytes} bytes")]
    OutOfMemory {
        /// What it is about.
        what: &'static str,
        /// How many were asked for.
        bytes: u64,
    },
    /// A size is beyond what is supported.
    #[error("{what}: {found} is too large; at most {allowed}")]
    TooLarge {
        /// What it is about.
        what: &'static str,
        /// What was found.
        found: u64,
        /// What is allowed.
        allowed: u64,
    },
}

impl DataError {
    /// Wraps an I/O error with the path it concerns: `map_err(DataError::io(path))`.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

fn place(path: &Option<PathBuf>) -> String {
    path.as_ref()
        .map_or_else(String::new, |path| format!(" {}", path.display()))
}

/// A record that cannot be used, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1, in the decompressed text; for Parquet, CSV and JSON arrays, the row.
    pub line: Option<u64>,
    /// What is wrong there.
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

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Bytes that are not UTF-8.
    #[error("not UTF-8 at byte {offset} of the {of}")]
    NotUtf8 {
        /// The place of the first such byte.
        offset: u64,
        /// Of what.
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
        /// What it is about.
        what: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: &'static str,
    },
    /// An object without the text field.
    #[error("no field \"{field}\"; the fields here are: {found}")]
    MissingField {
        /// The field asked for.
        field: String,
        /// What was found.
        found: String,
    },
    /// A file without a byte, or with no record.
    #[error("the file is empty")]
    EmptyFile,
    /// A record whose text has no characters.
    #[error("the text is empty")]
    EmptyText,
    /// A compressed stream that ends too early.
    #[error("the compressed stream ends too early; {lines} whole lines were read before that")]
    Truncated {
        /// Whole lines before that.
        lines: u64,
    },
    /// A compressed stream that cannot be read on.
    #[error("the compressed stream is damaged after {lines} whole lines: {message}")]
    BadStream {
        /// Whole lines before that.
        lines: u64,
        /// The reason.
        message: String,
    },
    /// More than a limit of the configuration allows.
    #[error("{what} of more than {allowed} {unit}; {key} = {allowed} is the limit")]
    OverLimit {
        /// What is too large.
        what: &'static str,
        /// The key of the configuration.
        key: &'static str,
        /// The limit.
        allowed: u64,
        /// What it counts.
        unit: &'static str,
    },
    /// A CSV file without a header, or a row that does not fit it.
    #[error("not CSV: {message}")]
    NotCsv {
        /// The reason.
        message: String,
    },
    /// A file of a kind that holds no prompts with completions.
    #[error(
        "{found} holds no prompts with completions; allowed: .jsonl, .ndjson, .json, .csv and .tsv, or a configuration without data.prompt_field and data.completion_field"
    )]
    NoPairs {
        /// What was found.
        found: &'static str,
    },
    /// A JSON file that is neither an array nor lines of objects.
    #[error("{found}, expected {expected}")]
    NotRecords {
        /// What was found.
        found: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A Parquet file that cannot be read.
    #[error("cannot read this Parquet file: {message}")]
    Parquet {
        /// The reason.
        message: String,
    },
}
