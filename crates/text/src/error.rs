//! Errors of tokenizers, sampling and generation.

use std::path::PathBuf;

/// The errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A file that cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A tokenizer, or a file that belongs to it, that cannot be read or used.
    #[error("{}: {message}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// The reason.
        message: String,
    },
    /// A tokenizer with ids outside the model's vocabulary.
    #[error(
        "{}: token ids up to {found}, but the model's vocabulary has {vocab_size} tokens; use the model's own tokenizer",
        path.display()
    )]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// The largest id.
        found: u32,
        /// The model's vocabulary size.
        vocab_size: usize,
    },
    /// An invalid sampling parameter.
    #[error("{key} is {found}; {allowed}")]
    Sampling {
        /// The parameter.
        key: &'static str,
        /// Its value.
        found: f64,
        /// What is allowed.
        allowed: &'static str,
    },
    /// Logits that do not define a distribution.
    #[error("the logit of token {token} is {value}, so no token can be chosen")]
    Logits {
        /// The first token with an invalid logit.
        token: usize,
        /// Its logit.
        value: f32,
    },
    /// A prompt that the model cannot continue.
    #[error("the prompt {reason}")]
    Prompt {
        /// The reason.
        reason: String,
    },
    /// A prompt that is longer than the model's context.
    #[error("the prompt has {tokens} tokens, the model's context {context}")]
    PromptTooLong {
        /// The prompt's length, in tokens.
        tokens: usize,
        /// The context length, in tokens.
        context: usize,
    },
    /// An invalid option of a beam search, or an end of targets that the model cannot have.
    #[error("{key} is {found}; {allowed}")]
    Beam {
        /// The option.
        key: &'static str,
        /// Its value.
        found: String,
        /// What is allowed.
        allowed: String,
    },
    /// A source that the model cannot encode.
    #[error("the source {reason}")]
    Source {
        /// The reason.
        reason: String,
    },
    /// A source that is longer than the model's context.
    #[error("the source has {tokens} tokens, the model's context {context}")]
    SourceTooLong {
        /// The source's length, in tokens.
        tokens: usize,
        /// The context length, in tokens.
        context: usize,
    },
    /// A beam search in which no hypothesis can grow or end.
    #[error(
        "after {tokens} tokens the options of the search admit no token: those left would repeat an n-gram, and the target is shorter than min_tokens"
    )]
    NoHypothesis {
        /// The tokens of the target so far.
        tokens: usize,
    },
    /// The tokenizer failed on a text or on tokens.
    #[error(transparent)]
    Data(#[from] iiet_data::DataError),
    /// The model cannot be read.
    #[cfg(feature = "engine")]
    #[error(transparent)]
    Model(#[from] iiet_model::ModelError),
}

impl TextError {
    /// For `map_err`.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
