//! Tokens per second of all models, measured alternately.
//!
//! A machine's speed drifts, and other processes use it too. So the models take turns, with a prompt and its
//! continuation each, in forward and in reverse order, and a model is compared with the reference round by
//! round. Medians exclude rounds that were disturbed. A turn has as many texts as take a tenth of a second on
//! the fastest model.

use std::ops::ControlFlow;
use std::time::Duration;

use burn::tensor::Device;
use iiet_model::{LanguageModel, Precision};
use iiet_text::{Request, Sampler, Sampling, generate};
use serde::Serialize;

use crate::error::EvalError;

/// Number of timed rounds, after one for warm-up.
const ROUNDS: usize = 7;
/// Target duration of a turn, and the maximum number of texts in it.
const TURN: (Duration, u32) = (Duration::from_millis(100), 64);
/// The maximum number of tokens of the prompt, and decoded after it.
const MOST: (usize, usize) = (512, 64);

/// The workload: one text, prefilled and continued greedily, with an f32 KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// Texts per batch.
    pub batch: usize,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens decoded after the prompt, one pass each.
    pub decoded_tokens: usize,
    /// Number of timed rounds.
    pub rounds: usize,
}

/// Tokens per second: medians over the rounds, and each round.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Speed {
    /// Tokens per second after the prompt.
    pub decoding: f64,
    /// Prompt tokens per second.
    pub prefill: f64,
    /// The median over the rounds of this model's tokens per second over the reference's.
    pub decoding_ratio: f64,
    /// The same for prefill.
    pub prefill_ratio: f64,
    /// Each round.
    pub rounds: Vec<Round>,
}

/// Tokens per second of one round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Round {
    /// Tokens per second after the prompt.
    pub decoding: f64,
    /// Prompt tokens per second.
    pub prefill: f64,
}

impl Workload {
    /// A workload that fits the smallest of the contexts: three quarters prompt, a quarter decoded.
    ///
    /// `None` if the prompt or the continuation would be empty.
    pub(super) fn within(context: usize) -> Option<Self> {
        let decoded_tokens = (context / 4).clamp(1, MOST.1);
        let prompt_tokens = context.saturating_sub(decoded_tokens).min(MOST.0);
        (prompt_tokens > 0).then_some(Self {
            batch: 1,
            prompt_tokens,
            decoded_tokens,
            rounds: ROUNDS,
        })
    }

    /// Measures the models, the first of which is the reference.
    ///
    /// # Errors
    /// The errors of the model.
    pub(super) fn measure(
        &self,
        models: &[&LanguageModel],
        device: &Device,
    ) -> Result<Vec<Speed>, EvalError> {
        let mut fastest = Duration::MAX;
        for model in models {
            let warm_up = self.text(model, device)?;
            fastest = fastest.min(warm_up.prefill + warm_up.decode);
        }
        let texts = TURN.0.div_duration_f64(fastest).ceil() as u32;
        let texts = texts.clamp(1, TURN.1);
        let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); models.len()];
        for number in 0..self.rounds {
            let mut order: Vec<usize> = (0..models.len()).collect();
            if number % 2 == 1 {
                order.reverse();
            }
            for at in order {
                let mut turn = iiet_text::Speed::default();
                for _ in 0..texts {
                    turn += self.text(models[at], device)?;
                }
                rounds[at].push(Round::of(&turn));
            }
        }
        let reference = rounds.first().cloned().unwrap_or_default();
        let speeds = rounds
            .into_iter()
            .map(|rounds| Speed::new(rounds, &reference));
        Ok(speeds.collect())
    }

    /// Prefills and continues a text; the time does not depend on the token ids.
    fn text(&self, model: &LanguageModel, device: &Device) -> Result<iiet_text::Speed, EvalError> {
        let vocab_size = model.sizes().vocab_size;
        let token = |i: usize| (i * 7919 % vocab_size) as u32;
        let request = Request {
            prompt: (0..self.prompt_tokens).map(token).collect(),
            // The first token is decoded from the prefill's logits.
            max_tokens: self.decoded_tokens + 1,
            end: Vec::new(),
            sliding: false,
            sampler: Sampler::new(&Sampling::default()),
        };
        let go_on = |_| ControlFlow::Continue(());
        let (_, speed) = generate(model, request, Precision::F32, device, go_on)?;
        Ok(speed)
    }
}

impl Round {
    fn of(turn: &iiet_text::Speed) -> Self {
        let rate = |tokens: usize, time: Duration| {
            tokens as f64 / time.as_secs_f64().max(f64::MIN_POSITIVE)
        };
        Self {
            decoding: rate(turn.decode_tokens, turn.decode),
            prefill: rate(turn.prefill_tokens, turn.prefill),
        }
    }
}

impl Speed {
    fn new(rounds: Vec<Round>, reference: &[Round]) -> Self {
        let of = |rate: fn(&Round) -> f64| median(rounds.iter().map(rate).collect());
        let ratio = |rate: fn(&Round) -> f64| {
            let pairs = rounds.iter().zip(reference);
            median(pairs.map(|(own, other)| rate(own) / rate(other)).collect())
        };
        Self {
            decoding: of(|round| round.decoding),
            prefill: of(|round| round.prefill),
            decoding_ratio: ratio(|round| round.decoding),
            prefill_ratio: ratio(|round| round.prefill),
            rounds,
        }
    }
}

/// The median of an odd number of values.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompt_and_continuation_fit_the_context() {
        let within = |context| {
            let workload = Workload::within(context)?;
            Some((workload.prompt_tokens, workload.decoded_tokens))
        };
        for (context, expected) in [
            (0, None),
            (1, None),
            (2, Some((1, 1))),
            (96, Some((72, 24))),
            (256, Some((192, 64))),
            (2048, Some((512, 64))),
        ] {
            assert_eq!(within(context), expected, "{context}");
        }
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let rounds = |rates: [f64; 3]| -> Vec<Round> {
            let round = |rate| Round {
                decoding: rate,
                prefill: 10.0 * rate,
            };
            rates.map(round).to_vec()
        };
        // The machine is twice as fast in the second round, and disturbs the model in the third.
        let reference = rounds([10.0, 20.0, 10.0]);
        let speed = Speed::new(rounds([5.0, 10.0, 1.0]), &reference);
        assert_eq!((speed.decoding, speed.prefill), (5.0, 50.0));
        assert_eq!((speed.decoding_ratio, speed.prefill_ratio), (0.5, 0.5));
    }
}
