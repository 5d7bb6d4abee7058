//! Requests divided among ranks: each answers every Nth of them, and then all have all answers.
//!
//! An answer does not depend on the other requests of its batch, so the results are those of one process.

use iiet_eval::{
    Continuation, EvalError, Generation, Progress, RollingScore, Scored, Scorer, TargetDecoder,
    Targets, Unscorable,
};
use iiet_text::BeamSearch;
use iiet_train::Ranks;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A model of which each rank has a copy.
pub(super) struct OnRanks<'a, S> {
    pub(super) model: S,
    pub(super) ranks: &'a Ranks,
}

/// A number without rounding, and whether it belongs to the most likely tokens.
type Sent = (u64, bool);

fn sent(scored: &Scored) -> Sent {
    (scored.log_likelihood.to_bits(), scored.is_greedy)
}

fn received((bits, is_greedy): Sent) -> Scored {
    Scored {
        log_likelihood: f64::from_bits(bits),
        is_greedy,
    }
}

/// The score of a text, likewise, and its tokens.
type SentOfText = (u64, u64);

fn sent_of_text(score: &RollingScore) -> SentOfText {
    (score.log_likelihood.to_bits(), score.tokens)
}

fn of_text((bits, tokens): SentOfText) -> RollingScore {
    RollingScore {
        log_likelihood: f64::from_bits(bits),
        tokens,
    }
}

fn failed(message: String) -> EvalError {
    EvalError::Scorer { message }
}

impl<S> OnRanks<'_, S> {
    /// The answers to all requests, in their order, as they are sent.
    fn divided<Q: Clone, A: Clone + Serialize + DeserializeOwned>(
        &self,
        requests: &[Q],
        answer: impl FnOnce(&[Q]) -> Result<Vec<A>, EvalError>,
    ) -> Result<Vec<A>, EvalError> {
        let size = self.ranks.size();
        let own = requests.iter().skip(self.ranks.rank()).step_by(size);
        let own: Vec<Q> = own.cloned().collect();
        let answers = match own.is_empty() {
            true => Ok(Vec::new()),
            false => answer(&own),
        };
        let told = answers.as_ref().map_err(ToString::to_string);
        let told = told.cloned();
        let of_each = self.ranks.gather(&told);
        let of_each = of_each.map_err(|error| failed(error.to_string()))?;
        answers?;
        let of_each = of_each.into_iter().enumerate().map(|(rank, answers)| {
            let answers = answers.map(Vec::into_iter);
            answers.map_err(|reason| failed(format!("rank {rank}: {reason}")))
        });
        let mut of_each = of_each.collect::<Result<Vec<_>, _>>()?;
        let in_turn = (0..requests.len()).map(|at| of_each[at % size].next());
        in_turn
            .map(|answer| answer.ok_or_else(|| failed("too few answers".into())))
            .collect()
    }
}

impl<S: Scorer> Scorer for OnRanks<'_, S> {
    fn log_likelihood(
        &self,
        requests: &[Continuation],
        progress: &dyn Progress,
    ) -> Result<Vec<Result<Scored, Unscorable>>, EvalError> {
        let answers = self.divided(requests, |own| {
            let answers = self.model.log_likelihood(own, progress)?.into_iter();
            Ok(answers
                .map(|answer| answer.as_ref().ok().map(sent))
                .collect())
        })?;
        let answers = answers.into_iter().zip(requests);
        let answers = answers.map(|(answer, request)| match answer {
            Some(scored) => Ok(vec![Ok(received(scored))]),
            // The reason takes no computation.
            None => self
                .model
                .log_likelihood(std::slice::from_ref(request), &()),
        });
        Ok(answers.collect::<Result<Vec<_>, _>>()?.concat())
    }

    fn log_likelihood_rolling(
        &self,
        texts: &[String],
        progress: &dyn Progress,
    ) -> Result<Vec<RollingScore>, EvalError> {
        let answers = self.divided(texts, |own| {
            let answers = self.model.log_likelihood_rolling(own, progress)?;
            Ok(answers.iter().map(sent_of_text).collect())
        })?;
        Ok(answers.into_iter().map(of_text).collect())
    }

    fn targets(
        &self,
        requests: &[Targets],
        progress: &dyn Progress,
    ) -> Result<Vec<Vec<Scored>>, EvalError> {
        let answers = self.divided(requests, |own| {
            let answers = self.model.targets(own, progress)?;
            let sent = |scores: &Vec<Scored>| scores.iter().map(sent).collect::<Vec<_>>();
            Ok(answers.iter().map(sent).collect())
        })?;
        let received = |scores: Vec<Sent>| scores.into_iter().map(received).collect();
        Ok(answers.into_iter().map(received).collect())
    }

    fn generate_until(
        &self,
        requests: &[Generation],
        progress: &dyn Progress,
    ) -> Result<Vec<String>, EvalError> {
        self.divided(requests, |own| self.model.generate_until(own, progress))
    }
}

impl<D: TargetDecoder> TargetDecoder for OnRanks<'_, D> {
    fn best_targets(
        &self,
        sources: &[String],
        search: &BeamSearch,
        progress: &dyn Progress,
    ) -> Result<Vec<Result<String, Unscorable>>, EvalError> {
        let answers = self.divided(sources, |own| {
            let answers = self.model.best_targets(own, search, progress)?;
            Ok(answers.into_iter().map(Result::ok).collect())
        })?;
        let answers = answers.into_iter().zip(sources);
        let answers = answers.map(|(answer, source)| match answer {
            Some(text) => Ok(vec![Ok(text)]),
            None => self
                .model
                .best_targets(std::slice::from_ref(source), search, &()),
        });
        Ok(answers.collect::<Result<Vec<_>, _>>()?.concat())
    }

    fn target_scores(
        &self,
        pairs: &[(&str, &str)],
        progress: &dyn Progress,
    ) -> Result<Vec<Result<RollingScore, Unscorable>>, EvalError> {
        let answers = self.divided(pairs, |own| {
            let answers = self.model.target_scores(own, progress)?.into_iter();
            Ok(answers
                .map(|answer| answer.as_ref().ok().map(sent_of_text))
                .collect())
        })?;
        let answers = answers.into_iter().zip(pairs);
        let answers = answers.map(|(answer, pair)| match answer {
            Some(score) => Ok(vec![Ok(of_text(score))]),
            None => self.model.target_scores(std::slice::from_ref(pair), &()),
        });
        Ok(answers.collect::<Result<Vec<_>, _>>()?.concat())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use iiet_train::Threads;

    use super::*;

    /// Scores texts by their lengths; empty ones cannot be scored.
    struct Lengths;

    impl Scorer for Lengths {
        fn log_likelihood(
            &self,
            requests: &[Continuation],
            _: &dyn Progress,
        ) -> Result<Vec<Result<Scored, Unscorable>>, EvalError> {
            let score = |request: &Continuation| match request.continuation.len() {
                0 => Err(Unscorable {
                    what: "continuation",
                    tokens: 0,
                    allowed: "1 and above".into(),
                    context: String::new(),
                    continuation: request.continuation.clone(),
                }),
                length => Ok(Scored {
                    log_likelihood: -0.1 * length as f64,
                    is_greedy: length % 2 == 0,
                }),
            };
            Ok(requests.iter().map(score).collect())
        }

        fn log_likelihood_rolling(
            &self,
            texts: &[String],
            _: &dyn Progress,
        ) -> Result<Vec<RollingScore>, EvalError> {
            match texts.iter().find(|text| text.len() > 9) {
                Some(text) => Err(failed(format!("{text} is long"))),
                None => Ok(texts
                    .iter()
                    .map(|text| RollingScore {
                        log_likelihood: f64::NEG_INFINITY,
                        tokens: text.len() as u64,
                    })
                    .collect()),
            }
        }

        fn generate_until(
            &self,
            requests: &[Generation],
            _: &dyn Progress,
        ) -> Result<Vec<String>, EvalError> {
            Ok(requests
                .iter()
                .map(|request| request.context.repeat(2))
                .collect())
        }
    }

    fn on_each<T: Send>(size: usize, work: impl Fn(&OnRanks<'_, Lengths>) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let ranks = Threads::new(size).into_iter().map(Ranks::new);
            let work = &work;
            let threads: Vec<_> = ranks
                .map(|ranks| {
                    scope.spawn(move || {
                        work(&OnRanks {
                            model: Lengths,
                            ranks: &ranks,
                        })
                    })
                })
                .collect();
            let results = threads.into_iter().map(|thread| thread.join().unwrap());
            results.collect()
        })
    }

    fn texts(count: usize) -> Vec<String> {
        (0..count).map(|length| "x".repeat(length % 6)).collect()
    }

    #[test]
    fn answers_come_in_the_order_of_the_requests() {
        for count in [0, 1, 2, 7] {
            let requests: Vec<Continuation> = texts(count)
                .into_iter()
                .map(|continuation| Continuation {
                    context: Arc::from(""),
                    continuation,
                })
                .collect();
            let alone = Lengths.log_likelihood(&requests, &()).unwrap();
            let rolling = Lengths.log_likelihood_rolling(&texts(count), &()).unwrap();
            for (found, found_rolling) in on_each(3, |scorer| {
                (
                    scorer.log_likelihood(&requests, &()).unwrap(),
                    scorer.log_likelihood_rolling(&texts(count), &()).unwrap(),
                )
            }) {
                assert_eq!(found, alone);
                assert_eq!(found_rolling, rolling);
            }
        }
    }

    #[test]
    fn an_error_of_one_rank_is_one_on_all() {
        let texts = ["a", "b", "much too long", "c"].map(str::to_owned);
        for error in on_each(4, |scorer| {
            scorer.log_likelihood_rolling(&texts, &()).unwrap_err()
        }) {
            let message = error.to_string();
            assert!(message.ends_with("much too long is long"), "{message}");
        }
    }
}
