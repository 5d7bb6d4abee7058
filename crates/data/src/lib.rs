//! Text to tokens to batches, reproducibly.
//!
//! A [`DataConfig`] names a source of text: the sources of the workspace's locked dependencies (the default),
//! text files and directories, JSON, CSV or Parquet. [`prepare`] reads it, trains or opens a [`Tokenizer`],
//! and packs the tokens into two [`TokenFile`]s, one for training and one for validation. [`Batches`] then
//! gives the batch of any step as a pure function of the seed and the step, so that a run can stop and resume
//! without replaying a reader.
//!
//! Instead of text, a [`TaskSpec`] names a task whose examples are computed.
//!
//! ```
//! use iiet_data::{Batches, DataConfig, SourceSpec, prepare};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let text = folder.path().join("fox.txt");
//! std::fs::write(&text, "The quick brown fox jumps over the lazy dog.\n".repeat(200))?;
//!
//! let config = DataConfig {
//!     source: SourceSpec::One(text.display().to_string()),
//!     vocab_size: 300,
//!     cache: folder.path().join("data"),
//!     ..DataConfig::default()
//! };
//! let prepared = prepare(&config, &())?;
//! let batches = Batches::new(prepared.train.clone(), 4, 32, 0)?;
//! let batch = batches.get(1_000_000)?; // the batch of step 1,000,000, directly
//! assert_eq!(batch.inputs.len(), 4 * 32);
//!
//! // A second call reuses the prepared corpus.
//! assert!(prepare(&config, &())?.reused);
//! # Ok(())
//! # }
//! ```

/// The example in the README, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod batch;
mod batches;
mod bucketed;
mod config;
mod error;
mod examples;
mod guarded;
mod inspect;
mod manifest;
mod mixture;
mod pairs;
mod prepare;
mod progress;
mod read_at;
mod sequence_pairs;
mod source;
pub mod statistics;
mod tasks;
mod token_file;
mod token_writer;
mod tokenizer;
mod training_batches;

pub use batch::{Batch, Sources};
pub use batches::{Batches, evaluation_windows};
pub use bucketed::{BatchSize, BucketedBatches};
pub use config::{
    AlignedFiles, DataConfig, Limits, OnError, SourceSpec, Validation, WeightedSource,
};
pub use error::{BadRecord, DataError, Problem};
pub use examples::{Examples, TextWindows, WeightedExamples};
pub use guarded::guarded;
pub use inspect::{
    FrequentToken, Inspection, Lengths, PairsInspection, TokenFileInspection, find_prepared,
    inspect, inspect_within,
};
pub use manifest::{Counts, Manifest, SkipReport, Skipped};
pub use mixture::MixedBatches;
pub use pairs::Pairs;
pub use prepare::{
    Content, Corpus, HeldOut, Prepared, PreparedSource, Rows, prepare, prepare_corpus,
};
pub use progress::Progress;
pub use sequence_pairs::{PairLengths, SequencePairs};
pub use source::cargo_deps::{CargoSummary, HeldOutCrates, HeldOutFile, LeftOut, default_corpus};
pub use source::cargo_docs::{DocsSummary, FunctionLeftOut};
pub use source::parquet::{ParquetSize, parquet_size};
pub use tasks::{
    Addition, Difficulties, Example, Group, GroupName, Hops, Judged, Part, PermutationGroup,
    Pointers, ShownExample, Task, TaskExamples, TaskInspection, TaskSpec, inspect_task,
};
pub use token_file::TokenFile;
pub use token_writer::TokenWriter;
pub use tokenizer::{DOCUMENT_END, TextStream, Tokenizer, Words, parse_tokenizer, untrusted};
pub use training_batches::TrainingBatches;
