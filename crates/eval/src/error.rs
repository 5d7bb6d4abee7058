//! What can go wrong in an evaluation, with the place and the values.

use std::path::PathBuf;

use crate::data::Split;

/// Every error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The system refused to read or write a file.
    #[error("{path}: {source}", path = path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    /// There is no task of this name.
    #[error("no task is called {name:?}; the tasks are {known}")]
    UnknownTask { name: String, known: String },
    /// A task's data is not on disk and was not fetched.
    #[error("{task}: no {split} data {place}; looked for {looked_for}; {remedy}")]
    NoData {
        task: String,
        split: Split,
        place: String,
        looked_for: String,
        remedy: String,
    },
    /// A file is not what its name says.
    #[error("{path}: not a readable {format} file: {message}", path = path.display())]
    Unreadable {
        path: PathBuf,
        format: &'static str,
        message: String,
    },
    /// A row cannot be read as an object.
    #[error("{path}, row {row}: {message}", path = path.display())]
    Row {
        path: PathBuf,
        row: usize,
        message: String,
    },
    /// What a file stands for takes too much memory for its size.
    #[error(
        "{path}: {what} more than {allowed} bytes of memory, which is 4 times the file's size and 256 MiB; divide the file or leave columns out",
        path = path.display()
    )]
    TooLarge {
        path: PathBuf,
        what: &'static str,
        allowed: u64,
    },
    /// A field of a row is missing or is not what the task reads there.
    #[error("{path}, row {row}, field {field:?}: found {found}, expected {expected}", path = path.display())]
    Field {
        path: PathBuf,
        row: usize,
        field: String,
        found: String,
        expected: String,
    },
    /// A data file holds no rows, or a text nothing.
    #[error("{path}: nothing in it", path = path.display())]
    NoRows { path: PathBuf },
    /// There are fewer examples than a prompt is to show.
    #[error(
        "{task}: {wanted} examples are to be drawn for each prompt, the {split} split has {found} rows"
    )]
    TooFewExamples {
        task: String,
        wanted: usize,
        split: Split,
        found: usize,
    },
    /// A tokenizer cannot be read or used, or a prompt not be continued.
    #[error(transparent)]
    Text(#[from] iiet_text::TextError),
    /// A context or continuation that the definitions give no value for.
    #[error(
        "{what} has {tokens} tokens, allowed are {allowed}: context ends in {context:?}, continuation is {continuation:?}"
    )]
    Unscorable {
        what: &'static str,
        tokens: usize,
        allowed: String,
        context: String,
        continuation: String,
    },
    /// Two evaluations are not of the same items.
    #[error(
        "{task}: the evaluations differ in {what}: {first} and {second}; they cannot be paired"
    )]
    NotPaired {
        task: String,
        what: &'static str,
        first: String,
        second: String,
    },
    /// The held-out text is too little for a generated task.
    #[error("{task}: the held-out crates give {found} items, {wanted} are needed")]
    TooFewItems {
        task: &'static str,
        found: usize,
        wanted: usize,
    },
    /// A report on nothing.
    #[error("no {of} is named; allowed: one or more")]
    Nothing { of: &'static str },
    /// A task is named more than once.
    #[error("the task {name} is named twice")]
    Twice { name: String },
    /// A model whose context has no room for a prompt and a token after it.
    #[error(
        "{model}: the context is {context} tokens; allowed: 2 and above, to measure the speed of decoding",
        model = model.display()
    )]
    Context { model: PathBuf, context: usize },
    /// Models that are compared do not fit into memory together.
    #[error(
        "the {models} models take {needed} MiB together, {available} MiB are free; their speeds are measured in turns, so all must fit",
        needed = needed >> 20,
        available = available >> 20
    )]
    Memory {
        models: usize,
        needed: u64,
        available: u64,
    },
    /// A task could not be asked of a model.
    #[error("{model}, {task}: {source}")]
    Asking {
        model: String,
        task: &'static str,
        source: Box<EvalError>,
    },
    /// A picture cannot be drawn or written.
    #[error("{path}: {reason}", path = path.display())]
    Drawing { path: PathBuf, reason: String },
    /// A model cannot be read or run.
    #[cfg(feature = "model")]
    #[error(transparent)]
    Model(#[from] iiet_model::ModelError),
    /// The scorer failed.
    #[error("{message}")]
    Scorer { message: String },
    /// The default corpus cannot be read.
    #[error(transparent)]
    Data(#[from] iiet_data::DataError),
}

impl EvalError {
    /// Wraps an I/O error with the path it concerns: `map_err(EvalError::io(path))`.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
