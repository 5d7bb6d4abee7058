//! Requests to an engine, and its events.

use crate::{Sampler, TextError};

/// A prompt to continue.
#[derive(Debug, Clone)]
pub struct Request {
    /// The prompt's tokens; at least one.
    pub prompt: Vec<u32>,
    /// The maximum number of tokens to add.
    pub max_tokens: usize,
    /// Tokens that end the text; they are not part of the continuation.
    pub end: Vec<u32>,
    /// Whether the text continues when the context is full, without its oldest tokens.
    pub sliding: bool,
    /// The sampling of tokens. Each request has its own RNG, independent of other requests.
    pub sampler: Sampler,
}

/// The id of an admitted request. Ids are not reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(super) u64);

/// An event of a step.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A token was added to its text.
    Token {
        /// The request.
        id: RequestId,
        /// The token.
        token: u32,
    },
    /// The text has ended, and its row is free.
    Ended {
        /// The request.
        id: RequestId,
        /// The reason.
        end: End,
    },
    /// No token could be sampled; the row is free.
    Failed {
        /// The request.
        id: RequestId,
        /// The reason.
        error: TextError,
    },
}

/// The reason why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The model chose one of the request's end tokens.
    Token(u32),
    /// The maximum number of tokens was reached.
    Length,
    /// The context is full.
    Context,
    /// The caller ended it.
    Caller,
}
