//! Asking a sequence-to-sequence model for the targets of a task's sources.

use std::time::Instant;

use crate::error::EvalError;
use crate::evaluation::{Evaluated, LeftOut, Prepared};
use crate::scorer::{Progress, TargetDecoder};
use crate::task::{Answers, Item};

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
            let task = self.task.name;
            return Err(EvalError::NeedsScorer { task });
        };
        let sources = self.items.iter().filter_map(|item| match item {
            Item::TargetText { source, .. } => Some(source.clone()),
            _ => None,
        });
        let sources: Vec<String> = sources.collect();
        let targets = decoder.best_targets(&sources, search, progress)?;
        let (mut answers, mut left_out) = (Vec::new(), Vec::new());
        for (item, target) in targets.into_iter().enumerate() {
            match target {
                Ok(text) => answers.push(Answers::Text(text)),
                Err(reason) => left_out.push(LeftOut { item, reason }),
            }
        }
        self.judge(left_out, answers, started.elapsed().as_secs_f64())
    }
}
