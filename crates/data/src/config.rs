//! The `[data]` section of a configuration.

mod limits;
mod source_spec;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(crate) use self::limits::EXPANSION_FREE_BYTES;
pub use self::limits::Limits;
pub use self::source_spec::{SourceSpec, WeightedSource};
use crate::error::DataError;

/// The source, the tokenizer and the output directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// `"cargo-deps"`, a path, a list of paths, a list of sources with weights, or a task. A task has
    /// its own vocabulary and validation, and takes no other key of this section.
    pub source: SourceSpec,
    /// `"train"`, or the path of a `tokenizer.json`.
    pub tokenizer: String,
    /// Vocabulary size of a trained tokenizer; an existing tokenizer keeps its own.
    pub vocab_size: usize,
    /// The share of the source that is held out, or the path of a separate source.
    pub validation: Validation,
    /// The field of a JSON object or the column of a CSV, TSV or Parquet file that contains the
    /// text.
    pub text_field: String,
    /// With [`completion_field`](Self::completion_field): the field or column of the prompt,
    /// instead of `text_field`. Records are then examples in which only the completion is trained
    /// on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_field: Option<String>,
    /// The field or column of the completion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_field: Option<String>,
    /// How to handle invalid records.
    pub on_error: OnError,
    /// The directory of prepared corpora; each is stored in `<cache>/<name>-<key>/`.
    pub cache: PathBuf,
    /// Limits on memory and disk space.
    pub limits: Limits,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            source: SourceSpec::default(),
            tokenizer: TRAIN.to_owned(),
            vocab_size: 4096,
            validation: Validation::default(),
            text_field: "text".to_owned(),
            prompt_field: None,
            completion_field: None,
            on_error: OnError::default(),
            cache: PathBuf::from("data"),
            limits: Limits::default(),
        }
    }
}

/// The value of `source` for the sources of the workspace's locked dependencies.
pub(crate) const CARGO_DEPS: &str = "cargo-deps";
/// The value of `tokenizer` for training one on the corpus.
pub(crate) const TRAIN: &str = "train";

/// The validation text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Validation {
    /// A share of the source's bytes, above 0 and below 1.
    Fraction(f64),
    /// The path of a separate source.
    Path(String),
}

impl Default for Validation {
    fn default() -> Self {
        Self::Fraction(0.05)
    }
}

/// How to handle invalid records: invalid UTF-8, a malformed JSON line, an empty file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// Stop with an error that contains file and line.
    #[default]
    Stop,
    /// Skip and count them, and report the first locations.
    Skip,
}

impl DataConfig {
    /// Tokens of the vocabulary, as far as they are known before anything is read: a task's, or those of
    /// a tokenizer that is trained.
    pub fn expected_vocab_size(&self) -> usize {
        match self.source.task() {
            Some(task) => task.vocab_size(),
            None => self.vocab_size,
        }
    }

    /// Refuses the keys that are about text.
    fn check_of_task(&self) -> Result<(), DataError> {
        let usual = Self::default();
        let text = |value: &str| format!("{value:?}");
        let field = |field: &Option<String>| text(field.as_deref().unwrap_or_default());
        let given = [
            (
                "data.tokenizer",
                self.tokenizer != usual.tokenizer,
                text(&self.tokenizer),
            ),
            (
                "data.vocab_size",
                self.vocab_size != usual.vocab_size,
                self.vocab_size.to_string(),
            ),
            (
                "data.validation",
                self.validation != usual.validation,
                match &self.validation {
                    Validation::Fraction(fraction) => fraction.to_string(),
                    Validation::Path(path) => text(path),
                },
            ),
            (
                "data.text_field",
                self.text_field != usual.text_field,
                text(&self.text_field),
            ),
            (
                "data.prompt_field",
                self.prompt_field.is_some(),
                field(&self.prompt_field),
            ),
            (
                "data.completion_field",
                self.completion_field.is_some(),
                field(&self.completion_field),
            ),
            (
                "data.on_error",
                self.on_error != usual.on_error,
                text("skip"),
            ),
            (
                "data.limits",
                self.limits != usual.limits,
                "another table than the default".to_owned(),
            ),
        ];
        match given.into_iter().find(|(_, is_given, _)| *is_given) {
            None => Ok(()),
            Some((key, _, found)) => Err(DataError::Config {
                key,
                found,
                allowed: "nothing beside a task: vocabulary and validation follow from it"
                    .to_owned(),
            }),
        }
    }

    /// The fields of a prompt and its completion, if records are pairs.
    pub(crate) fn pair_fields(&self) -> Option<[&str; 2]> {
        Some([
            self.prompt_field.as_deref()?,
            self.completion_field.as_deref()?,
        ])
    }

    /// Checks what can be checked without reading the source.
    ///
    /// # Errors
    /// [`DataError::Config`] with the key, its value and the allowed values.
    pub fn check(&self) -> Result<(), DataError> {
        let invalid = |key: &'static str, found: String, allowed: String| {
            Err(DataError::Config {
                key,
                found,
                allowed,
            })
        };
        if let Some(task) = self.source.task() {
            self.check_of_task()?;
            return task.check();
        }
        if let Validation::Fraction(fraction) = self.validation
            && !(fraction > 0.0 && fraction < 1.0)
        {
            let allowed = "a number above 0 and below 1, or a path".to_owned();
            return invalid("data.validation", fraction.to_string(), allowed);
        }
        let allowed = crate::tokenizer::MIN_VOCAB..=crate::tokenizer::MAX_VOCAB;
        if self.tokenizer == TRAIN && !allowed.contains(&self.vocab_size) {
            let allowed = format!("{} to {}", allowed.start(), allowed.end());
            return invalid("data.vocab_size", self.vocab_size.to_string(), allowed);
        }
        self.source.check()?;
        self.limits.check()?;
        for (key, field) in [
            ("data.text_field", Some(&self.text_field)),
            ("data.prompt_field", self.prompt_field.as_ref()),
            ("data.completion_field", self.completion_field.as_ref()),
        ] {
            if field.is_some_and(String::is_empty) {
                let allowed = "the name of a field".to_owned();
                return invalid(key, "\"\"".to_owned(), allowed);
            }
        }
        for (key, field, other) in [
            (
                "data.prompt_field",
                &self.prompt_field,
                &self.completion_field,
            ),
            (
                "data.completion_field",
                &self.completion_field,
                &self.prompt_field,
            ),
        ] {
            if field.is_none() && other.is_some() {
                let allowed = "prompt_field and completion_field together, or neither".to_owned();
                return invalid(key, "nothing".to_owned(), allowed);
            }
        }
        Ok(())
    }
}
