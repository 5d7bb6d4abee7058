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

mod candidates;
mod memory;
mod repeats;
mod search;

use std::ops::ControlFlow;

use burn::tensor::Device;
use iiet_model::{EncoderDecoder, Precision};

pub use self::memory::BeamBatch;
use self::search::Search;
pub(crate) use self::search::check_source;
use crate::TextError;

/// The maximum of [`BeamSearch::beam`].
const BEAMS: usize = 1024;

/// The options of a beam search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BeamSearch {
    /// The number of hypotheses of a source that grow side by side, K; 1 is greedy decoding.
    pub beam: usize,
    /// The exponent a of the length in a score: 0 ranks by log-probability, larger ones prefer longer
    /// targets.
    pub length_penalty: f64,
    /// No end token is chosen before a target has this many tokens.
    pub min_tokens: usize,
    /// The most tokens of a target, without its end token. The model's context may allow fewer.
    pub max_tokens: usize,
    /// No n-gram of this size occurs twice in a target, the token before it included; 0 allows all. An end
    /// token is not subject to it.
    pub no_repeat_ngram: usize,
    /// The number of hypotheses that are returned for a source, at most `beam`.
    pub n_best: usize,
}

impl Default for BeamSearch {
    /// Beam 4 and length penalty 0.6, as the ODE Transformer translates, and up to 256 tokens.
    fn default() -> Self {
        Self {
            beam: 4,
            length_penalty: 0.6,
            min_tokens: 0,
            max_tokens: 256,
            no_repeat_ngram: 0,
            n_best: 1,
        }
    }
}

/// The tokens between which the tokens of a target stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetEnds {
    /// The token before the first.
    pub start: u32,
    /// The tokens that end a target; at least one.
    pub end: Vec<u32>,
}

/// A target that a search has found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// Its tokens, without start and end token.
    pub tokens: Vec<u32>,
    /// The end token; `None` if the caller ended the target.
    pub end: Option<u32>,
    /// Whether an end token alone was allowed, because of `max_tokens` or of the model's context.
    pub forced: bool,
    /// `log p(tokens, end | source)` in nats, the sum over the tokens and the end token.
    pub log_probability: f64,
    /// The log-probability divided by `length^length_penalty`; the length counts the end token.
    pub score: f64,
}

impl BeamSearch {
    /// Checks the ranges of the options.
    ///
    /// # Errors
    ///
    /// [`TextError::Beam`] with the key, the value and what is allowed.
    pub fn validate(&self) -> Result<(), TextError> {
        let refuse = |key, found: String, allowed: String| {
            Err(TextError::Beam {
                key,
                found,
                allowed,
            })
        };
        let (beam, penalty) = (self.beam, self.length_penalty);
        if !(1..=BEAMS).contains(&beam) {
            return refuse("beam", beam.to_string(), format!("allowed: 1 to {BEAMS}"));
        }
        if !(1..=beam).contains(&self.n_best) {
            let allowed = format!("allowed: 1 to {beam}, the value of beam");
            return refuse("n_best", self.n_best.to_string(), allowed);
        }
        // Beyond, the power of a length exceeds the range of numbers.
        if !(-10.0..=10.0).contains(&penalty) {
            return refuse(
                "length_penalty",
                penalty.to_string(),
                "allowed: -10 to 10".into(),
            );
        }
        if self.min_tokens > self.max_tokens {
            let allowed = format!("allowed: 0 to {}, the value of max_tokens", self.max_tokens);
            return refuse("min_tokens", self.min_tokens.to_string(), allowed);
        }
        Ok(())
    }

    /// The best hypotheses of each source, the best first. All sources are decoded in one batch; those that
    /// are finished leave it.
    ///
    /// `cache` is the dtype of the targets' keys and values. There may be fewer than `n_best` hypotheses
    /// where the options admit no more.
    ///
    /// # Errors
    ///
    /// The errors of [`validate`](Self::validate); [`TextError::Source`] and [`TextError::SourceTooLong`] for
    /// a source that the model cannot encode; [`TextError::Beam`] for `min_tokens` beyond the context and for
    /// ends that are no tokens of the model; [`TextError::Logits`] for logits that do not define a
    /// distribution; [`TextError::NoHypothesis`] where the options admit no target.
    pub fn search(
        &self,
        model: &EncoderDecoder,
        sources: &[&[u32]],
        ends: &TargetEnds,
        cache: Precision,
        device: &Device,
    ) -> Result<Vec<Vec<Hypothesis>>, TextError> {
        self.validate()?;
        if sources.is_empty() {
            return Ok(Vec::new());
        }
        let mut search = Search::new(self, model, sources, ends, cache, device)?;
        while !search.is_finished() {
            search.step()?;
        }
        Ok(search.into_best())
    }

    /// The most likely token again and again, which is a search with one beam: `on_token` is called with
    /// each token of the target when it is chosen, without the end token, and may end the target.
    ///
    /// `beam` and `n_best` are taken as 1.
    ///
    /// # Errors
    ///
    /// The same as for [`search`](Self::search).
    pub fn greedy(
        &self,
        model: &EncoderDecoder,
        source: &[u32],
        ends: &TargetEnds,
        cache: Precision,
        device: &Device,
        mut on_token: impl FnMut(u32) -> ControlFlow<()>,
    ) -> Result<Hypothesis, TextError> {
        let options = Self {
            beam: 1,
            n_best: 1,
            ..*self
        };
        let mut search = Search::new(&options, model, &[source], ends, cache, device)?;
        while !search.is_finished() {
            search.step()?;
            if let Some(unfinished) = search.last_chosen()
                && on_token(unfinished).is_break()
            {
                return Ok(search.into_unfinished());
            }
        }
        let best = search.into_best().pop().and_then(|mut best| best.pop());
        Ok(best.expect("invariant: a finished source has a hypothesis"))
    }

    /// The score of a hypothesis of so many tokens, the end token included.
    fn score(&self, log_probability: f64, length: usize) -> f64 {
        log_probability / (length as f64).powf(self.length_penalty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_errors_that_name_the_key_and_the_range() {
        let options = BeamSearch::default();
        options.validate().unwrap();
        for (options, expected) in [
            (
                BeamSearch { beam: 0, ..options },
                "beam is 0; allowed: 1 to 1024",
            ),
            (
                BeamSearch {
                    beam: 1025,
                    ..options
                },
                "beam is 1025; allowed: 1 to 1024",
            ),
            (
                BeamSearch {
                    n_best: 5,
                    ..options
                },
                "n_best is 5; allowed: 1 to 4, the value of beam",
            ),
            (
                BeamSearch {
                    n_best: 0,
                    ..options
                },
                "n_best is 0; allowed: 1 to 4, the value of beam",
            ),
            (
                BeamSearch {
                    length_penalty: f64::NAN,
                    ..options
                },
                "length_penalty is NaN; allowed: -10 to 10",
            ),
            (
                BeamSearch {
                    min_tokens: 9,
                    max_tokens: 8,
                    ..options
                },
                "min_tokens is 9; allowed: 0 to 8, the value of max_tokens",
            ),
        ] {
            assert_eq!(options.validate().unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_score_is_the_log_probability_per_power_of_the_length() {
        let score = |length_penalty| {
            let options = BeamSearch {
                length_penalty,
                ..BeamSearch::default()
            };
            options.score(-6.0, 4)
        };
        assert_eq!([0.0, 0.5, 1.0, 2.0].map(score), [-6.0, -3.0, -1.5, -0.375]);
    }
}
