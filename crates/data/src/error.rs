//! Errors with their location and values.

mod problem;

use std::path::PathBuf;

pub use self::problem::{BadRecord, Problem};

/// The errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A value of the configuration is not allowed.
    #[error("{key} = {found} is not allowed; allowed: {allowed}")]
    Config {
        /// The key, with its section.
        key: &'static str,
        /// The value.
        found: String,
        /// The allowed values.
        allowed: String,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// An invalid record; with `on_error = "skip"` it is skipped.
    #[error("{0}; on_error = \"skip\" skips and counts such records")]
    Bad(BadRecord),
    /// A file named in the configuration with an unsupported extension.
    #[error("{path}: no reader for this kind of file; supported extensions: {known}. A file without an extension is read as text", path = path.display())]
    UnknownKind {
        /// The file or directory.
        path: PathBuf,
        /// The supported extensions.
        known: String,
    },
    /// A directory without files of a supported kind.
    #[error(
        "{path}: nothing to read in this folder ({other_files} files with other extensions); supported extensions: {known}",
        path = path.display()
    )]
    NothingToRead {
        /// The file or directory.
        path: PathBuf,
        /// Number of files with other extensions.
        other_files: u64,
        /// The supported extensions.
        known: String,
    },
    /// A failure of `cargo metadata`, which lists the default corpus.
    #[error(
        "cannot list the locked dependencies with `cargo metadata --locked`: {message}; run inside a workspace whose Cargo.lock is current, after `cargo fetch`, or set data.source to a path"
    )]
    CargoMetadata {
        /// The reason.
        message: String,
    },
    /// A split with an empty part.
    #[error(
        "the {split} part would be empty: {documents} documents, {text_bytes} bytes of text, {held_out} of them held out; {remedy}"
    )]
    EmptySplit {
        /// The empty part.
        split: &'static str,
        /// Number of documents in the source.
        documents: u64,
        /// Bytes of its text.
        text_bytes: u64,
        /// Bytes of text held out.
        held_out: u64,
        /// What the user can change.
        remedy: &'static str,
    },
    /// A source whose text differed when it was read again.
    #[error(
        "the source changed while it was being read: first {before} bytes of text in {documents_before} documents, then {after} in {documents_after}"
    )]
    SourceChanged {
        /// Bytes of text in the first reading.
        before: u64,
        /// Bytes of text in the second.
        after: u64,
        /// Documents in the first reading.
        documents_before: u64,
        /// Documents in the second.
        documents_after: u64,
    },
    /// A source file that was modified during preparation.
    #[error(
        "{path}: the source changed while it was being prepared; prepare it again when no process writes to it",
        path = path.display()
    )]
    SourceRewritten {
        /// The file or directory.
        path: PathBuf,
    },
    /// A tokenizer that cannot be read, trained or used.
    #[error("tokenizer{at}: {message}", at = place(path))]
    Tokenizer {
        /// The file or directory.
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
    /// A token id outside the vocabulary.
    #[error("token id {token}{at} is outside the vocabulary of {vocab_size}", at = place(path))]
    TokenOutOfRange {
        /// The file or directory.
        path: Option<PathBuf>,
        /// The id.
        token: u32,
        /// The vocabulary size.
        vocab_size: usize,
    },
    /// A token file with invalid content.
    #[error("{path}: damaged or not a token file: {what} is {found}, expected {expected}", path = path.display())]
    Damaged {
        /// The file or directory.
        path: PathBuf,
        /// The invalid field.
        what: &'static str,
        /// The value.
        found: String,
        /// The expected value.
        expected: String,
    },
    /// A token file whose length has changed since it was opened.
    #[error(
        "{path}: the file has {found} bytes, but had {expected} when it was opened; another process changed it. Prepare the corpus again with `data prepare`",
        path = path.display()
    )]
    ChangedWhileOpen {
        /// The file or directory.
        path: PathBuf,
        /// The current length.
        found: u64,
        /// The length when it was opened.
        expected: u64,
    },
    /// A prepared directory with inconsistent content.
    #[error("{path}: {what} is {found}, expected {expected}; delete the directory to prepare it again", path = path.display())]
    Inconsistent {
        /// The file or directory.
        path: PathBuf,
        /// The inconsistent value.
        what: &'static str,
        /// The value.
        found: String,
        /// The expected value.
        expected: String,
    },
    /// A range of tokens, or a window, that exceeds the file.
    #[error("{what} {start}..{end} out of range, there are {len}")]
    OutOfRange {
        /// What the range counts.
        what: &'static str,
        /// The start of the range.
        start: u64,
        /// The end of the range, exclusive.
        end: u64,
        /// The available number.
        len: u64,
    },
    /// Examples that are longer than a row.
    #[error(
        "{path}: {count} of {of} examples have more than {allowed} tokens, one more than model.seq_len: number {number} has {tokens}; raise model.seq_len or shorten them",
        path = path.display(), number = index + 1
    )]
    ExamplesTooLong {
        /// The file or directory.
        path: PathBuf,
        /// Number of examples that are too long.
        count: u64,
        /// Total number of examples.
        of: u64,
        /// The index of the first of them, from 0.
        index: u64,
        /// Its number of tokens.
        tokens: u64,
        /// The maximum number of tokens.
        allowed: u64,
    },
    /// An example that does not form a row of a batch.
    #[error(
        "a row of {what}; allowed: equal numbers of each, at most {seq}, and weights that are finite and not negative"
    )]
    Row {
        /// The invalid row.
        what: String,
        /// Tokens per row.
        seq: usize,
    },
    /// A source that does not form a row of a batch.
    #[error("a source of {tokens} tokens; allowed: 1 to {seq}")]
    SourceRow {
        /// Its number of tokens.
        tokens: usize,
        /// Tokens per row.
        seq: usize,
    },
    /// Pairs of source and target where another kind of document is read, or the reverse.
    #[error("{path}: its documents are {found}; allowed here: {allowed}", path = path.display())]
    DocumentKind {
        /// The file.
        path: PathBuf,
        /// The kind of its documents.
        found: &'static str,
        /// The allowed kinds.
        allowed: &'static str,
    },
    /// No pair of source and target fits in the model's context.
    #[error(
        "{path}: each of the {of} pairs has a source or a target of more than {allowed} tokens, which is model.seq_len; the shortest has {shortest}; raise model.seq_len or shorten them",
        path = path.display()
    )]
    AllPairsTooLong {
        /// The file.
        path: PathBuf,
        /// Number of pairs.
        of: u64,
        /// The number of tokens of the longer side of the pair in which that is the shortest.
        shortest: u64,
        /// The maximum number of tokens per side.
        allowed: u64,
    },
    /// Aligned files with different numbers of lines.
    #[error(
        "{} has {source_lines} lines and {} has {target_lines}; line i of one belongs to line i of the other, so allowed: equal numbers",
        source_path.display(), target_path.display()
    )]
    LineCounts {
        /// The file of sources.
        source_path: PathBuf,
        /// Its number of lines.
        source_lines: u64,
        /// The file of targets.
        target_path: PathBuf,
        /// Its number of lines.
        target_lines: u64,
    },
    /// A pair of source and target that is larger than a batch.
    #[error(
        "{path}: a pair of {source_tokens} source tokens and {target_tokens} target tokens does not fit in a batch of train.batch_tokens = {allowed}; raise it, or lower model.seq_len, above which pairs are left out",
        path = path.display()
    )]
    PairLongerThanBatch {
        /// The file.
        path: PathBuf,
        /// Tokens of its source.
        source_tokens: u64,
        /// Tokens of its target.
        target_tokens: u64,
        /// The maximum number of tokens per batch and side.
        allowed: u64,
    },
    /// A file that is too short for one window.
    #[error("{path}: {tokens} tokens, at least 2 are needed to predict one from another", path = path.display())]
    TooFewTokens {
        /// The file or directory.
        path: PathBuf,
        /// Its number of tokens.
        tokens: u64,
    },
    /// A Parquet file that cannot be read.
    #[error("{path}: cannot read this Parquet file: {message}", path = path.display())]
    Parquet {
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        message: String,
    },
    /// A directory that neither is nor contains a prepared corpus.
    #[error(
        "{path}: neither a token file nor a prepared corpus (a directory with manifest.json), nor a directory that contains prepared corpora",
        path = path.display()
    )]
    NotPrepared {
        /// The file or directory.
        path: PathBuf,
    },
    /// Threads that cannot be started.
    #[error("cannot start the threads that parse sources: {message}")]
    Threads {
        /// The reason.
        message: String,
    },
    /// A failed allocation of a known size.
    #[error("cannot allocate {bytes} bytes for {what}")]
    OutOfMemory {
        /// The purpose of the allocation.
        what: &'static str,
        /// The requested size.
        bytes: u64,
    },
    /// A size that exceeds a limit.
    #[error("{what}: {found} is too large; at most {allowed}")]
    TooLarge {
        /// The quantity.
        what: &'static str,
        /// The value.
        found: u64,
        /// The maximum.
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
