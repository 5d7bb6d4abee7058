//! Tokens per second of all models, measured alternately.
//!
//! A machine's speed drifts, and other processes use it too. So the models take turns with the same workload,
//! in forward and in reverse order, and a model is compared with the reference round by round. Medians exclude
//! rounds that were disturbed. A turn repeats the workload until the fastest model takes a tenth of a second.

use std::time::Duration;

use burn::tensor::Device;
use serde::Serialize;

use super::kind::Kind;
use crate::error::EvalError;

/// Number of timed rounds, after one for warm-up.
pub(super) const ROUNDS: usize = 7;
/// Target duration of a turn, and the maximum number of workloads in it.
const TURN: (Duration, u32) = (Duration::from_millis(100), 64);

/// The workload, in f32: a text that is prefilled and continued, or sources whose targets are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// Texts or sources per batch.
    pub batch: usize,
    /// Hypotheses of each that grow side by side; 1 is greedy decoding.
    pub beam: usize,
    /// Tokens of the prompt, or of each source.
    pub prompt_tokens: usize,
    /// Tokens decoded after the prompt, or of each target, one pass each.
    pub decoded_tokens: usize,
    /// Number of timed rounds.
    pub rounds: usize,
}

/// Tokens per second: medians over the rounds, and each round.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Speed {
    /// Tokens per second after the prompt, or of targets.
    pub decoding: f64,
    /// Prompt tokens per second, or source tokens that are encoded.
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
    /// Tokens per second after the prompt, or of targets.
    pub decoding: f64,
    /// Prompt tokens per second, or source tokens that are encoded.
    pub prefill: f64,
}

impl Workload {
    /// Measures the models, the first of which is the reference.
    ///
    /// # Errors
    /// The errors of the model.
    pub(super) fn measure<K: Kind>(
        &self,
        models: &[K],
        device: &Device,
    ) -> Result<Vec<Speed>, EvalError> {
        let mut fastest = Duration::MAX;
        for model in models {
            let warm_up = model.run(self, device)?;
            fastest = fastest.min(warm_up.prefill + warm_up.decode);
        }
        let times = TURN.0.div_duration_f64(fastest).ceil() as u32;
        let times = times.clamp(1, TURN.1);
        let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); models.len()];
        for number in 0..self.rounds {
            let mut order: Vec<usize> = (0..models.len()).collect();
            if number % 2 == 1 {
                order.reverse();
            }
            for at in order {
                let mut turn = iiet_text::Speed::default();
                for _ in 0..times {
                    turn += models[at].run(self, device)?;
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
