//! What can go wrong between text and a model.

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
    /// A tokenizer, or a file beside it, that cannot be read or used.
    #[error("{}: {message}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A tokenizer with ids that the model does not embed.
    #[error(
        "{}: token ids up to {found}, the model's vocabulary has {vocab_size}; this is not the model's tokenizer",
        path.display()
    )]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// The greatest id.
        found: u32,
        /// Tokens of the model's vocabulary.
        vocab_size: usize,
    },
    /// A sampling parameter that makes no sense.
    #[error("{key} is {found}; {allowed}")]
    Sampling {
        /// The parameter.
        key: &'static str,
        /// Its value.
        found: f64,
        /// What is allowed.
        allowed: &'static str,
    },
    /// Logits that no token can be chosen from.
    #[error("the logit of token {token} is {value}, so no token can be chosen")]
    Logits {
        /// The first token with such a logit.
        token: usize,
        /// Its logit.
        value: f32,
    },
    /// A prompt that the model cannot continue.
    #[error("the prompt {reason}")]
    Prompt {
        /// What is wrong with it.
        reason: String,
    },
    /// A prompt that is longer than what the model can see.
    #[error("the prompt has {tokens} tokens, the model's context {context}")]
    PromptTooLong {
        /// Its length.
        tokens: usize,
        /// The most that fit.
        context: usize,
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
