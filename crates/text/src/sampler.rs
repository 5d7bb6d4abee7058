//! Sampling of the next token from the logits.
//!
//! The filters are applied in the usual order: repetition penalty, temperature, top-k, top-p, min-p. One draw
//! follows from the softmax over the remaining tokens.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::TextError;

/// Sampling parameters. The default is greedy decoding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 selects the most likely token, the first among equals.
    pub temperature: f64,
    /// Keeps this number of most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the smallest set of most likely tokens whose probabilities sum to this; 1 keeps all (Holtzman et
    /// al., arXiv 1904.09751).
    pub top_p: f64,
    /// Keeps tokens at least this fraction as likely as the most likely one; 0 keeps all (Nguyen et al.,
    /// arXiv 2407.01082).
    pub min_p: f64,
    /// Divides the positive logits of tokens that occur in the text, and multiplies the negative ones; 1 has
    /// no effect (Keskar et al., *CTRL*, arXiv 1909.05858, section 4.1).
    pub repetition_penalty: f64,
    /// RNG seed.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: 0,
        }
    }
}

impl Sampling {
    /// Checks the ranges of the parameters.
    ///
    /// # Errors
    ///
    /// [`TextError::Sampling`] with the name, the value and the allowed range.
    pub fn validate(&self) -> Result<(), TextError> {
        let unit = |x: f64| (0.0..=1.0).contains(&x);
        let positive = |x: f64| x.is_finite() && x > 0.0;
        for (key, value, fits, allowed) in [
            (
                "temperature",
                self.temperature,
                self.temperature == 0.0 || positive(self.temperature),
                "allowed: 0 or above, and finite",
            ),
            (
                "top_p",
                self.top_p,
                unit(self.top_p) && self.top_p > 0.0,
                "allowed: above 0, up to 1",
            ),
            ("min_p", self.min_p, unit(self.min_p), "allowed: 0 to 1"),
            (
                "repetition_penalty",
                self.repetition_penalty,
                positive(self.repetition_penalty),
                "allowed: above 0, and finite",
            ),
        ] {
            if !fits {
                return Err(TextError::Sampling {
                    key,
                    found: value,
                    allowed,
                });
            }
        }
        Ok(())
    }
}

/// Samples the tokens of one text.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    random: ChaCha8Rng,
}

impl Sampler {
    /// A sampler at the start of the seed's sequence.
    pub fn new(sampling: &Sampling) -> Self {
        Self {
            sampling: *sampling,
            random: ChaCha8Rng::seed_from_u64(sampling.seed),
        }
    }

    /// The `i`th of several independent samplers with a common seed, for the texts of a batch.
    pub fn nth(sampling: &Sampling, i: u64) -> Self {
        let mut sampler = Self::new(sampling);
        sampler.random.set_stream(i);
        sampler
    }

    /// Samples an index; `text` holds the preceding tokens. A logit of negative infinity means probability
    /// zero.
    ///
    /// # Errors
    ///
    /// [`TextError::Logits`] if a logit is NaN or positive infinity, or all are negative infinity: such
    /// logits do not define a distribution.
    pub fn choose(&mut self, logits: &[f32], text: &[u32]) -> Result<u32, TextError> {
        let Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            ..
        } = self.sampling;
        check(logits)?;
        let mut logits: Vec<f64> = logits.iter().map(|x| f64::from(*x)).collect();
        if repetition_penalty != 1.0 {
            penalise(&mut logits, text, repetition_penalty);
        }
        let (mut best, mut highest) = (0, f64::NEG_INFINITY);
        for (i, x) in logits.iter().enumerate() {
            if *x > highest {
                (best, highest) = (i, *x);
            }
        }
        if temperature == 0.0 {
            return Ok(best as u32);
        }

        // Relative to the most likely token's weight, in the order of the ids.
        let mut weights: Vec<(usize, f64)> = logits
            .iter()
            .enumerate()
            .filter(|(_, x)| x.is_finite())
            .map(|(i, x)| (i, ((x - highest) / temperature).exp()))
            .collect();
        if top_k > 0 && top_k < weights.len() {
            keep_most_likely(&mut weights, top_k);
        }
        if top_p < 1.0 {
            keep_nucleus(&mut weights, top_p);
        }
        weights.retain(|(_, weight)| *weight >= min_p);

        let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
        // 53 random bits give a number in [0, 1).
        let uniform = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut left = uniform * total;
        for (i, weight) in &weights {
            left -= weight;
            if left < 0.0 {
                return Ok(*i as u32);
            }
        }
        Ok(best as u32)
    }
}

/// Rejects logits that do not define a distribution.
pub(crate) fn check(logits: &[f32]) -> Result<(), TextError> {
    let wrong = logits
        .iter()
        .position(|x| x.is_nan() || *x == f32::INFINITY);
    let none = || logits.iter().all(|x| *x == f32::NEG_INFINITY);
    match wrong.or_else(|| none().then_some(0)) {
        Some(token) => Err(TextError::Logits {
            token,
            value: logits.get(token).copied().unwrap_or(f32::NEG_INFINITY),
        }),
        None => Ok(()),
    }
}

fn penalise(logits: &mut [f64], text: &[u32], penalty: f64) {
    let mut seen = text.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for id in seen {
        if let Some(x) = logits.get_mut(id as usize) {
            *x = if *x > 0.0 { *x / penalty } else { *x * penalty };
        }
    }
}

/// Keeps the `k` largest weights, and those equal to the smallest of them.
fn keep_most_likely(weights: &mut Vec<(usize, f64)>, k: usize) {
    let mut ranked: Vec<f64> = weights.iter().map(|(_, weight)| *weight).collect();
    let (_, least, _) = ranked.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    let least = *least;
    weights.retain(|(_, weight)| *weight >= least);
}

/// Keeps the most likely tokens as long as those before them sum to less than `p`.
fn keep_nucleus(weights: &mut Vec<(usize, f64)>, p: f64) {
    let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
    // If the weights below a bound sum to less than 1 - p, none of them is kept, so most of a vocabulary need
    // not be sorted.
    let least = (1.0 - p) * total / weights.len() as f64;
    let mut ranked: Vec<(usize, f64)> = weights.clone();
    ranked.retain(|(_, weight)| *weight >= least);
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut sum = 0.0;
    let kept = ranked.iter().take_while(|(_, weight)| {
        let before = sum;
        sum += weight;
        before < p * total
    });
    let kept = kept.count();
    ranked.truncate(kept);
    ranked.sort_by_key(|(i, _)| *i);
    *weights = ranked;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frequency of each index among `n` draws.
    fn shares(sampling: Sampling, logits: &[f32], n: usize) -> Vec<f64> {
        let mut sampler = Sampler::new(&sampling);
        let mut counts = vec![0.0; logits.len()];
        for _ in 0..n {
            counts[sampler.choose(logits, &[]).unwrap() as usize] += 1.0;
        }
        counts.iter().map(|count| count / n as f64).collect()
    }

    /// Probabilities 1/2, 1/4, 3/16, 1/16 in another order.
    fn logits() -> Vec<f32> {
        [3.0f32, 8.0, 1.0, 4.0].map(f32::ln).to_vec()
    }

    const WARM: Sampling = Sampling {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        seed: 1,
    };

    fn assert_shares(sampling: Sampling, expected: [f64; 4]) {
        let n = 20_000;
        for (found, p) in shares(sampling, &logits(), n).iter().zip(expected) {
            // Four standard deviations of the mean of n draws.
            let error = 4.0 * (p * (1.0 - p) / n as f64).sqrt();
            assert!(
                (found - p).abs() <= error,
                "{sampling:?}: {found}, expected {p}"
            );
        }
    }

    #[test]
    fn temperature_zero_selects_the_first_of_the_most_likely() {
        let mut sampler = Sampler::new(&Sampling::default());
        assert_eq!(sampler.choose(&[0.0, 2.0, 1.0, 2.0], &[]).unwrap(), 1);
        let masked = [f32::NEG_INFINITY, -3.0];
        assert_eq!(sampler.choose(&masked, &[]).unwrap(), 1);
    }

    #[test]
    fn invalid_logits_are_errors_at_every_temperature() {
        for sampling in [Sampling::default(), WARM] {
            for (logits, expected) in [
                ([0.0, f32::NAN], "the logit of token 1 is NaN"),
                ([f32::INFINITY, 0.0], "the logit of token 0 is inf"),
                ([f32::NEG_INFINITY; 2], "the logit of token 0 is -inf"),
            ] {
                let error = Sampler::new(&sampling).choose(&logits, &[]).unwrap_err();
                assert!(error.to_string().contains(expected), "{error}");
            }
        }
    }

    #[test]
    fn draws_follow_the_softmax_at_the_temperature() {
        assert_shares(WARM, [0.1875, 0.5, 0.0625, 0.25]);
        // Squares of the probabilities: 9, 64, 1 and 16 of 90.
        let cold = Sampling {
            temperature: 0.5,
            ..WARM
        };
        assert_shares(cold, [9.0 / 90.0, 64.0 / 90.0, 1.0 / 90.0, 16.0 / 90.0]);
    }

    #[test]
    fn filters_keep_the_expected_tokens() {
        let two = [0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0];
        let three = [3.0 / 15.0, 8.0 / 15.0, 0.0, 4.0 / 15.0];
        assert_shares(Sampling { top_k: 2, ..WARM }, two);
        assert_shares(Sampling { top_k: 9, ..WARM }, [0.1875, 0.5, 0.0625, 0.25]);
        // 1/2 + 1/4 reaches 0.7 and not 0.8.
        assert_shares(Sampling { top_p: 0.7, ..WARM }, two);
        assert_shares(Sampling { top_p: 0.8, ..WARM }, three);
        assert_shares(
            Sampling {
                top_p: 1e-9,
                ..WARM
            },
            [0.0, 1.0, 0.0, 0.0],
        );
        // 3/16 is 0.375 of the largest, 1/16 is 0.125.
        assert_shares(Sampling { min_p: 0.3, ..WARM }, three);
        assert_shares(Sampling { min_p: 0.4, ..WARM }, two);
        // After top-k, top-p applies to the remaining tokens: 8/12 reaches 0.6.
        let both = Sampling {
            top_k: 2,
            top_p: 0.6,
            ..WARM
        };
        assert_shares(both, [0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn tokens_of_the_text_are_penalised_for_both_signs_of_logits() {
        let greedy = Sampling {
            repetition_penalty: 2.0,
            ..Sampling::default()
        };
        let mut sampler = Sampler::new(&greedy);
        assert_eq!(sampler.choose(&[3.0, 2.0, -1.0], &[0, 0]).unwrap(), 1);
        assert_eq!(sampler.choose(&[-3.0, -2.0, -9.0], &[1]).unwrap(), 0);
        // An id outside the logits is ignored.
        assert_eq!(sampler.choose(&[3.0, 2.0, -1.0], &[7]).unwrap(), 0);
    }

    #[test]
    fn draws_depend_on_the_seed_and_the_stream() {
        let draws = |mut sampler: Sampler| -> Vec<u32> {
            let draw = |_| sampler.choose(&logits(), &[]).unwrap();
            (0..50).map(draw).collect()
        };
        assert_eq!(draws(Sampler::new(&WARM)), draws(Sampler::nth(&WARM, 0)));
        assert_ne!(draws(Sampler::nth(&WARM, 1)), draws(Sampler::nth(&WARM, 0)));
        let other = Sampling { seed: 2, ..WARM };
        assert_ne!(draws(Sampler::new(&other)), draws(Sampler::new(&WARM)));
    }

    #[test]
    fn invalid_parameters_are_errors_with_their_name() {
        for (sampling, expected) in [
            (
                Sampling {
                    temperature: -1.0,
                    ..WARM
                },
                "temperature is -1",
            ),
            (
                Sampling {
                    temperature: f64::NAN,
                    ..WARM
                },
                "temperature is NaN",
            ),
            (
                Sampling { top_p: 0.0, ..WARM },
                "top_p is 0; allowed: above 0, up to 1",
            ),
            (
                Sampling { min_p: 1.5, ..WARM },
                "min_p is 1.5; allowed: 0 to 1",
            ),
            (
                Sampling {
                    repetition_penalty: 0.0,
                    ..WARM
                },
                "repetition_penalty is 0",
            ),
        ] {
            let error = sampling.validate().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
