//! A beam search from sources to hypotheses.

use std::ops::ControlFlow;

use burn::tensor::Device;
use iiet_model::{EncoderDecoder, Precision};

use super::BeamSearch;
use super::search::Search;
use crate::TextError;

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
    pub(super) fn score(&self, log_probability: f64, length: usize) -> f64 {
        log_probability / (length as f64).powf(self.length_penalty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
