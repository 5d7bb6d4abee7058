//! The `[data]` section of a configuration.

mod aligned_files;
mod limits;
mod source_spec;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use self::aligned_files::AlignedFiles;
pub(crate) use self::limits::EXPANSION_FREE_BYTES;
pub use self::limits::Limits;
pub use self::source_spec::{SourceSpec, WeightedSource};
use crate::error::DataError;
use crate::token_file::DocumentKind;

/// The source, the tokenizer and the output directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// `"cargo-deps"`, `"cargo-docs"`, a path, a list of paths, a list of sources with weights, two aligned
    /// files, or a task. A task has its own vocabulary and validation, and takes no other key of this section.
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
    /// With [`target_field`](Self::target_field): the field or column of the source, instead of
    /// `text_field`. Records are then pairs for sequence-to-sequence training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_field: Option<String>,
    /// The field or column of the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_field: Option<String>,
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
            source_field: None,
            target_field: None,
            on_error: OnError::default(),
            cache: PathBuf::from("data"),
            limits: Limits::default(),
        }
    }
}

/// The value of `source` for the sources of the workspace's locked dependencies.
pub(crate) const CARGO_DEPS: &str = "cargo-deps";
/// The value of `source` for pairs of code and documentation from the same.
pub(crate) const CARGO_DOCS: &str = "cargo-docs";
/// The value of `tokenizer` for training one on the corpus.
pub(crate) const TRAIN: &str = "train";

/// The validation text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number above 0 and below 1, a path, or { source, target }"
)]
pub enum Validation {
    /// A share of the source's bytes, above 0 and below 1.
    Fraction(f64),
    /// The path of a separate source.
    Path(String),
    /// Two aligned files of sources and targets.
    Aligned(AlignedFiles),
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
                    Validation::Aligned(_) => "two files".to_owned(),
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
                "data.source_field",
                self.source_field.is_some(),
                field(&self.source_field),
            ),
            (
                "data.target_field",
                self.target_field.is_some(),
                field(&self.target_field),
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

    /// Whether the data are pairs of source and target, for sequence-to-sequence training.
    pub fn has_sources(&self) -> bool {
        self.document_kind() == DocumentKind::Sources
    }

    /// What a record of the source is.
    pub(crate) fn document_kind(&self) -> DocumentKind {
        if self.source_field.is_some() || self.source.is_of_pairs() {
            DocumentKind::Sources
        } else if self.prompt_field.is_some() {
            DocumentKind::Prompts
        } else {
            DocumentKind::Text
        }
    }

    /// The keys and names of the fields that are read from a record: one, or two of a pair; none if the
    /// source is pairs without fields.
    pub(crate) fn fields(&self) -> Vec<(&'static str, &str)> {
        let (keys, fields) = match self.document_kind() {
            DocumentKind::Text => return vec![("text_field", self.text_field.as_str())],
            DocumentKind::Prompts => (
                ["prompt_field", "completion_field"],
                [&self.prompt_field, &self.completion_field],
            ),
            DocumentKind::Sources => (
                ["source_field", "target_field"],
                [&self.source_field, &self.target_field],
            ),
        };
        let fields = keys.into_iter().zip(fields);
        fields
            .filter_map(|(key, field)| Some((key, field.as_deref()?)))
            .collect()
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
        self.check_fields()
    }

    /// Checks the names of fields, and that they are those of one kind of record.
    fn check_fields(&self) -> Result<(), DataError> {
        let invalid = |key: &'static str, found: &str, allowed: &str| {
            Err(DataError::Config {
                key,
                found: found.to_owned(),
                allowed: allowed.to_owned(),
            })
        };
        for (key, field) in [
            ("data.text_field", Some(&self.text_field)),
            ("data.prompt_field", self.prompt_field.as_ref()),
            ("data.completion_field", self.completion_field.as_ref()),
            ("data.source_field", self.source_field.as_ref()),
            ("data.target_field", self.target_field.as_ref()),
        ] {
            if field.is_some_and(String::is_empty) {
                return invalid(key, "\"\"", "the name of a field");
            }
        }
        let prompts = [&self.prompt_field, &self.completion_field];
        let sources = [&self.source_field, &self.target_field];
        for (keys, fields, allowed) in [
            (
                ["data.prompt_field", "data.completion_field"],
                prompts,
                "prompt_field and completion_field together, or neither",
            ),
            (
                ["data.source_field", "data.target_field"],
                sources,
                "source_field and target_field together, or neither",
            ),
        ] {
            for at in 0..2 {
                if fields[at].is_none() && fields[1 - at].is_some() {
                    return invalid(keys[at], "nothing", allowed);
                }
            }
        }
        if let ([Some(prompt), _], [Some(_), _]) = (prompts, sources) {
            let allowed = "either source_field and target_field, or prompt_field and \
                           completion_field: a record is one kind of pair";
            return invalid("data.prompt_field", &format!("{prompt:?}"), allowed);
        }
        self.check_forms_of_pairs()
    }

    /// Checks that the forms of source and validation are both of pairs, or neither.
    fn check_forms_of_pairs(&self) -> Result<(), DataError> {
        let invalid = |key: &'static str, found: &str, allowed: &str| {
            Err(DataError::Config {
                key,
                found: found.to_owned(),
                allowed: allowed.to_owned(),
            })
        };
        if self.source.is_of_pairs() {
            let given = [
                ("data.source_field", &self.source_field),
                ("data.prompt_field", &self.prompt_field),
            ];
            for (key, field) in given {
                if let Some(field) = field {
                    let allowed = "no field beside \"cargo-docs\" or two aligned files, which have \
                                   no fields";
                    return invalid(key, &format!("{field:?}"), allowed);
                }
            }
            if let Validation::Path(path) = &self.validation {
                let allowed = "a number above 0 and below 1, or { source, target }: two aligned \
                               files of pairs";
                return invalid("data.validation", &format!("{path:?}"), allowed);
            }
        }
        if let Validation::Aligned(files) = &self.validation {
            files.check("data.validation")?;
            if !self.has_sources() {
                let allowed = "a number above 0 and below 1, or a path; two files hold pairs of \
                               source and target, as data.source = { source, target } or \
                               data.source_field and data.target_field";
                return invalid("data.validation", "{ source, target }", allowed);
            }
        }
        match (&self.source, self.has_sources()) {
            (SourceSpec::Mixture(members), true) => {
                let found = format!("a mixture of {} sources", members.len());
                let allowed = "one source, or a list of paths that are read as one: pairs of \
                               source and target are not mixed by weight";
                invalid("data.source", &found, allowed)
            }
            _ => Ok(()),
        }
    }
}
