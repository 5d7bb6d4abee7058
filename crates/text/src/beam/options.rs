//! The options of a beam search.

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
}
