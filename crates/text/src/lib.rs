//! Text generation with language models and sequence-to-sequence models.
//!
//! - [`TextTokenizer`] and [`SpecialTokens`]: text to tokens, following `transformers`.
//! - [`with_tokenizer_class`]: the file by which `transformers` reads a tokenizer.
//! - [`Sampler`]: samples the next token from the logits.
//! - [`Stops`]: finds stop texts in streamed text.
//! - [`Engine`] (feature `engine`): requests of any length, admitted, stepped together and evicted at any
//!   step; [`generate`] for a single request.
//! - [`BeamSearch`]: the most likely targets of a sequence-to-sequence model (the search itself with feature
//!   `engine`).
//! - [`TextModel`] and [`TextEngine`] (feature `engine`): the engine for strings.
//! - [`TextToText`] (feature `engine`): beam search for strings.
//!
//! This crate does not print: results are returned as events.

mod beam;
#[cfg(feature = "engine")]
mod engine;
mod error;
mod sampler;
mod special_tokens;
mod stops;
#[cfg(feature = "engine")]
mod text_engine;
#[cfg(feature = "engine")]
mod text_model;
#[cfg(feature = "engine")]
mod text_to_text;
mod text_tokenizer;
mod tokenizer_class;

pub use beam::BeamSearch;
#[cfg(feature = "engine")]
pub use beam::{BeamBatch, Hypothesis, TargetEnds};
#[cfg(feature = "engine")]
pub use engine::{
    Continuation, End, Engine, EngineOptions, Event, Request, RequestId, Speed, generate,
};
pub use error::TextError;
pub use sampler::{Sampler, Sampling};
pub use special_tokens::{SpecialTokens, Template};
pub use stops::Stops;
#[cfg(feature = "engine")]
pub use text_engine::{TextEnd, TextEngine, TextEvent, TextRequest};
#[cfg(feature = "engine")]
pub use text_model::TextModel;
#[cfg(feature = "engine")]
pub use text_to_text::{TextHypothesis, TextToText};
pub use text_tokenizer::TextTokenizer;
pub use tokenizer_class::with_tokenizer_class;

#[cfg(all(doctest, feature = "engine"))]
#[doc = include_str!("../README.md")]
struct Readme;
