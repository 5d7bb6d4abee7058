//! Beam search: the most likely targets of a sequence-to-sequence model, many sources at once.
//!
//! K hypotheses of a source, its beams, grow side by side. With `s(h)` the log-probability of the beam `h`,
//! a step ranks all its extensions by a token `v`
//!
//! ```text
//! s(h v) = s(h) + log p(v | source, h)
//! ```
//!
//! An extension by an end token that is among the first K is a finished hypothesis, with the score
//!
//! ```text
//! score = s / length^a          length counts the end token; a is the length penalty
//! ```
//!
//! and the first K of the others are the next beams. A source is finished with K finished hypotheses, or
//! when `max_tokens` are chosen and only an end may follow. These are the rules of fairseq's
//! `SequenceGenerator` (Ott et al., arXiv 1904.01038), with which the figures of the ODE Transformer were
//! decoded. There is one end token in fairseq; here a model may have several, and each ends a hypothesis.

#[cfg(feature = "engine")]
mod candidates;
#[cfg(feature = "engine")]
mod hypothesis;
#[cfg(feature = "engine")]
mod memory;
mod options;
#[cfg(feature = "engine")]
mod repeats;
#[cfg(feature = "engine")]
mod search;

#[cfg(feature = "engine")]
pub use self::hypothesis::{Hypothesis, TargetEnds};
#[cfg(feature = "engine")]
pub use self::memory::BeamBatch;
pub use self::options::BeamSearch;
#[cfg(feature = "engine")]
pub(crate) use self::search::check_source;
