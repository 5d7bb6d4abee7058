//! Asking a sequence-to-sequence model for the targets of a task's sources, and how likely the references are.

use std::time::Instant;

use crate::error::EvalError;
use crate::evaluation::{Evaluated, LeftOut, Prepared};
use crate::item::{Answers, Item};
use crate::scorer::{Progress, RollingScore, TargetDecoder, Unscorable};

impl Prepared {
    /// Asks a sequence-to-sequence model, with [`search`](Self::search).
    ///
    /// # Errors
    /// Those of the decoder; [`EvalError::NeedsScorer`] for a task that [`evaluate`](Self::evaluate) asks.
    pub fn decode(
        &self,
        decoder: &dyn TargetDecoder,
        progress: &dyn Progress,
    ) -> Result<Evaluated, EvalError> {
        let started = Instant::now();
        let Some(search) = &self.search else {
            return Err(self.needs_scorer());
        };
        let sources: Vec<String> = self.pairs().map(|(source, _)| source.to_owned()).collect();
        let targets = decoder.best_targets(&sources, search, progress)?;
        let answers = targets.into_iter().map(|target| target.map(Answers::Text));
        self.judge_each(answers, started)
    }

    /// Asks a sequence-to-sequence model how likely the references are: bits per byte of their text, and
    /// perplexities. Of several references of a source, nats and lengths are added up.
    ///
    /// # Errors
    /// The same as for [`decode`](Self::decode).
    pub fn score_references(
        &self,
        decoder: &dyn TargetDecoder,
        progress: &dyn Progress,
    ) -> Result<Evaluated, EvalError> {
        let started = Instant::now();
        if self.search.is_none() {
            return Err(self.needs_scorer());
        }
        let pairs = self.pairs().flat_map(|(source, references)| {
            let references = references.iter();
            references.map(move |reference| (source, reference.as_str()))
        });
        let pairs: Vec<(&str, &str)> = pairs.collect();
        let mut scores = decoder.target_scores(&pairs, progress)?.into_iter();
        let answers = self.pairs().map(|(_, references)| {
            let scores = scores.by_ref().take(references.len());
            // All are taken, also after one without a score.
            let scores: Vec<Result<RollingScore, Unscorable>> = scores.collect();
            let scores: Result<Vec<RollingScore>, Unscorable> = scores.into_iter().collect();
            scores.map(|scores| {
                Answers::Rolling(RollingScore {
                    log_likelihood: scores.iter().map(|score| score.log_likelihood).sum(),
                    tokens: scores.iter().map(|score| score.tokens).sum(),
                })
            })
        });
        self.judge_each(answers, started)
    }

    fn needs_scorer(&self) -> EvalError {
        let task = self.task.name;
        EvalError::NeedsScorer { task }
    }

    /// Sources and references.
    fn pairs(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.items.iter().filter_map(|item| match item {
            Item::TargetText { source, references } => Some((source.as_str(), &**references)),
            _ => None,
        })
    }

    /// The metrics of the answers to all items, without those that there is a reason for.
    fn judge_each(
        &self,
        all: impl Iterator<Item = Result<Answers, Unscorable>>,
        started: Instant,
    ) -> Result<Evaluated, EvalError> {
        let (mut answers, mut left_out) = (Vec::new(), Vec::new());
        for (item, answer) in all.enumerate() {
            match answer {
                Ok(answer) => answers.push(answer),
                Err(reason) => left_out.push(LeftOut { item, reason }),
            }
        }
        self.judge(left_out, answers, started.elapsed().as_secs_f64())
    }
}
