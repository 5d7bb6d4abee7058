//! What can go wrong in an evaluation, with the place and the values.

use std::path::PathBuf;

use crate::data::Split;
use crate::scorer::Unscorable;

/// Every error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The system refused to read or write a file.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// There is no task of this name.
    #[error("no task is called {name:?}; the tasks are {known}")]
    UnknownTask {
        /// The name.
        name: String,
        /// The tasks that there are.
        known: String,
    },
    /// A task's data is not on disk and was not fetched.
    #[error("{task}: no {split} data {place}; looked for {looked_for}; {remedy}")]
    NoData {
        /// The task.
        task: String,
        /// The part of the data set.
        split: Split,
        /// Where it was looked for.
        place: String,
        /// The files that were looked for.
        looked_for: String,
        /// What to do.
        remedy: String,
    },
    /// A part that a data set does not have.
    #[error("{task}: there is no {split} split; allowed: {allowed}")]
    NoSplit {
        /// The task.
        task: String,
        /// The part asked for.
        split: Split,
        /// The parts that there are.
        allowed: String,
    },
    /// Items are to be made from a workspace, and there is none.
    #[error(
        "{task}: its items are made from the locked dependencies of a Cargo workspace, and {folder} is in none that can be read ({reason}); inside one, `iiet data heldout --out DIR` writes the items, and --heldout DIR reads them anywhere",
        folder = folder.display()
    )]
    NoWorkspace {
        /// The task.
        task: String,
        /// Where one was looked for.
        folder: PathBuf,
        /// What cargo says.
        reason: String,
    },
    /// A folder of generated items without those of a task.
    #[error(
        "{path}: there is no such file; `iiet data heldout --out DIR` writes the items of all heldout tasks",
        path = path.display()
    )]
    NoHeldOut {
        /// The file.
        path: PathBuf,
    },
    /// A file is not what its name says.
    #[error("{path}: not a readable {format} file: {message}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The format that its name promises.
        format: &'static str,
        /// What is wrong.
        message: String,
    },
    /// A row cannot be read as an object.
    #[error("{path}, row {row}: {message}", path = path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Its number, counted from 1.
        row: usize,
        /// What is wrong.
        message: String,
    },
    /// What a file stands for takes too much memory for its size.
    #[error(
        "{path}: {what} more than {allowed} bytes of memory, which is 4 times the file's size and 256 MiB; divide the file or leave columns out",
        path = path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// What is allowed.
        allowed: u64,
    },
    /// A field of a row is missing or is not what the task reads there.
    #[error("{path}, row {row}, field {field:?}: found {found}, expected {expected}", path = path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// Its number, counted from 1.
        row: usize,
        /// The field.
        field: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A data file holds no rows, or a text nothing.
    #[error("{path}: nothing in it", path = path.display())]
    NoRows {
        /// The file.
        path: PathBuf,
    },
    /// There are fewer examples than a prompt is to show.
    #[error(
        "{task}: {wanted} examples are to be drawn for each prompt, the {split} split has {found} rows"
    )]
    TooFewExamples {
        /// The task.
        task: String,
        /// How many are needed.
        wanted: usize,
        /// The part of the data set.
        split: Split,
        /// What was found.
        found: usize,
    },
    /// A tokenizer cannot be read or used, or a prompt not be continued.
    #[error(transparent)]
    Text(#[from] iiet_text::TextError),
    /// A context or continuation that the definitions give no value for.
    #[error(transparent)]
    Unscorable(#[from] Unscorable),
    /// A task of sources and targets is asked of a language model.
    #[error(
        "{task}: a task for sequence-to-sequence models, which decode a target for each source; this is a language model"
    )]
    NeedsDecoder {
        /// The task.
        task: &'static str,
    },
    /// A task of probabilities is asked of a sequence-to-sequence model.
    #[error(
        "{task}: a task for language models; sequence-to-sequence models are asked for translation and summarisation"
    )]
    NeedsScorer {
        /// The task.
        task: &'static str,
    },
    /// The options of a beam search are out of range.
    #[error("{task}: {source}")]
    Search {
        /// The task.
        task: &'static str,
        /// The option, and what is allowed.
        source: Box<iiet_text::TextError>,
    },
    /// A report on language models and sequence-to-sequence models together.
    #[error(
        "{language_model} is a language model and {encoder_decoder} a sequence-to-sequence model; models of one kind are compared",
        language_model = language_model.display(), encoder_decoder = encoder_decoder.display()
    )]
    Kinds {
        /// A model of the one kind.
        language_model: PathBuf,
        /// A model of the other.
        encoder_decoder: PathBuf,
    },
    /// Two evaluations are not of the same items.
    #[error(
        "{task}: the evaluations differ in {what}: {first} and {second}; they cannot be paired"
    )]
    NotPaired {
        /// The task.
        task: String,
        /// What it is.
        what: &'static str,
        /// That of the first model.
        first: String,
        /// That of the second model.
        second: String,
    },
    /// The held-out text is too little for a generated task.
    #[error("{task}: the held-out crates give {found} items, {wanted} are needed")]
    TooFewItems {
        /// The task.
        task: &'static str,
        /// What was found.
        found: usize,
        /// How many are needed.
        wanted: usize,
    },
    /// Texts that are compared segment by segment have different numbers of segments.
    #[error(
        "{first} has {first_count} segments, {second} has {second_count}; line n of one is compared with line n of the other, so the numbers must be equal"
    )]
    SegmentCounts {
        /// A text.
        first: String,
        /// Its segments.
        first_count: usize,
        /// Another text.
        second: String,
        /// Its segments.
        second_count: usize,
    },
    /// A line of a text is not UTF-8.
    #[error("{path}, line {line}: byte {byte} of the line is not UTF-8", path = path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The line's number, counted from 1.
        line: usize,
        /// The number of the byte in the line, counted from 1.
        byte: usize,
    },
    /// A line of a text is too long.
    #[error(
        "{path}, line {line}: the line has more than {allowed} bytes, the limit of a segment (SEGMENT_BYTES); divide it",
        path = path.display()
    )]
    LongLine {
        /// The file.
        path: PathBuf,
        /// The line's number, counted from 1.
        line: usize,
        /// What is allowed.
        allowed: usize,
    },
    /// A text has too many words for the tables of ROUGE-L.
    #[error(
        "{found} words; allowed for ROUGE are {allowed} in a segment (ROUGE_WORDS), whose tables take 128 MiB; divide the segment or leave ROUGE out"
    )]
    TooManyWords {
        /// What was found.
        found: usize,
        /// What is allowed.
        allowed: usize,
    },
    /// An error about one segment of a text.
    #[error("{text}, segment {segment} or its reference: {source}")]
    Segment {
        /// The text.
        text: String,
        /// The segment's number, counted from 1.
        segment: usize,
        /// The reason.
        source: Box<EvalError>,
    },
    /// A report on nothing.
    #[error("no {of} is named; allowed: one or more")]
    Nothing {
        /// What there should be one of.
        of: &'static str,
    },
    /// A symbol of a generated task is no token of the model.
    #[error(
        "the model has no token {symbol:?}; allowed: models trained on the task, whose vocabulary has its symbols"
    )]
    Symbol {
        /// The symbol.
        symbol: String,
    },
    /// Options of generated tasks that cannot be applied.
    #[error("--set {assignment}: {reason}")]
    Assignment {
        /// The assignment.
        assignment: String,
        /// What is wrong.
        reason: String,
    },
    /// Models that were trained on different tasks of one name.
    #[error(
        "{first} and {second} were trained on {task} with other options, in their task.json; --set {task}.KEY=VALUE says which to ask",
        first = first.display(), second = second.display()
    )]
    Trained {
        /// The task.
        task: String,
        /// The first model.
        first: PathBuf,
        /// Another one.
        second: PathBuf,
    },
    /// A generated task without options.
    #[error("{task}: a generated task; Settings::generated says which examples are asked")]
    NotAsked {
        /// The task.
        task: String,
    },
    /// A task is named more than once.
    #[error("the task {name} is named twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// A model whose context has no room for a prompt and a token after it.
    #[error(
        "{model}: the context is {context} tokens; allowed: 2 and above, to measure the speed of decoding",
        model = model.display()
    )]
    Context {
        /// The model.
        model: PathBuf,
        /// Tokens of its context.
        context: usize,
    },
    /// Models that are compared do not fit into memory together.
    #[error(
        "the {models} models take {needed} MiB together, {available} MiB are free; their speeds are measured in turns, so all must fit",
        needed = needed >> 20,
        available = available >> 20
    )]
    Memory {
        /// How many models.
        models: usize,
        /// Bytes that they take.
        needed: u64,
        /// Bytes that are free.
        available: u64,
    },
    /// A task could not be asked of a model.
    #[error("{model}, {task}: {source}")]
    Asking {
        /// The model.
        model: String,
        /// The task.
        task: &'static str,
        /// The reason.
        source: Box<EvalError>,
    },
    /// A model cannot be read or run.
    #[cfg(feature = "model")]
    #[error(transparent)]
    Model(#[from] iiet_model::ModelError),
    /// The scorer failed.
    #[error("{message}")]
    Scorer {
        /// What is wrong.
        message: String,
    },
    /// The default corpus cannot be read, or a generated task not have its options.
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
