//! What an engine is asked for, and what it tells.

use crate::{Sampler, TextError};

/// A prompt to continue.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its tokens; at least one.
    pub prompt: Vec<u32>,
    /// The most tokens to add.
    pub max_tokens: usize,
    /// Tokens that end the text; they are not part of it.
    pub end: Vec<u32>,
    /// Whether the text goes on when the context is full, without its oldest tokens.
    pub sliding: bool,
    /// How tokens are chosen. Its draws are the request's own: they do not depend on other requests.
    pub sampler: Sampler,
}

/// A request that was admitted; ids are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(super) u64);

/// What became of a request in a step.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A token was added to its text.
    Token {
        /// Whose.
        id: RequestId,
        /// The token.
        token: u32,
    },
    /// Its text has ended, and its place is free.
    Ended {
        /// Whose.
        id: RequestId,
        /// Why.
        end: End,
    },
    /// No token could be chosen; its place is free.
    Failed {
        /// Whose.
        id: RequestId,
        /// Why.
        error: TextError,
    },
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The model chose one of the tokens that end a text.
    Token(u32),
    /// It has as many tokens as were asked for.
    Length,
    /// The context is full.
    Context,
    /// The caller took it out.
    Caller,
}
