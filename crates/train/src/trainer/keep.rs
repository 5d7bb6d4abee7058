//! Writing of checkpoints.

use std::path::PathBuf;

use iiet_data::DataError;

use super::Trainer;
use crate::checkpoint::{self, Contents, State};
use crate::evaluate::Evaluation;
use crate::{Event, TrainError, TrainedModel};

/// The newest checkpoint and its step.
pub(super) struct LastCheckpoint {
    pub(super) step: u64,
    pub(super) path: PathBuf,
}

impl<M: TrainedModel> Trainer<'_, M> {
    pub(super) fn write_checkpoint(
        &mut self,
        evaluation: Option<&Evaluation>,
    ) -> Result<PathBuf, TrainError> {
        let (step, tokens) = (self.state().step(), self.state().tokens());
        let mut state = State::after(step, tokens, self.config, &self.batches, &self.identity);
        state.validation_loss = evaluation.map(|evaluation| evaluation.loss);
        state.loss_scale = self.state().loss_scale;
        let mut retention = std::mem::take(&mut self.retention);
        let contents = Contents {
            state,
            model: &self.state().valid(),
            optimizer: self.state().optimizer(),
            tokenizer: &self.corpus.tokenizer,
            task: self.corpus.task(),
            config: &self.config_text,
            shard: self.config.train.shard,
        };
        let keep = self.config.train.keep;
        let written = checkpoint::write(&self.run, contents, &mut retention, keep, self.ranks);
        self.retention = retention;
        let path = written.map_err(|error| match checkpoint::not_finite(&error) {
            Some(name) => self.broken(format!("{name} contains a non-finite value")),
            None => error,
        })?;
        self.checkpoint = Some(LastCheckpoint {
            step,
            path: path.clone(),
        });
        self.observer.on(&Event::Checkpoint { step, path: &path });
        Ok(path)
    }

    /// Ends a run whose corpus can no longer be read; the steps so far are saved.
    pub(super) fn data_lost(&mut self, source: DataError) -> TrainError {
        let last = self.checkpoint.as_ref().map_or(0, |last| last.step);
        // The other processes have not lost it, and take no part.
        if last < self.state().step()
            && self.ranks.size() == 1
            && let Err(error) = self.write_checkpoint(None)
        {
            return error;
        }
        TrainError::DataLost {
            step: self.state().step() + 1,
            source: Box::new(source),
            checkpoint: self.last_checkpoint(),
        }
    }

    pub(super) fn broken(&self, what: String) -> TrainError {
        TrainError::Broken {
            step: self.state().step(),
            what,
            checkpoint: self.last_checkpoint(),
        }
    }

    /// The last checkpoint, as a sentence.
    pub(super) fn last_checkpoint(&self) -> String {
        match &self.checkpoint {
            Some(last) => format!("The last checkpoint is {}.", last.path.display()),
            None => "There is no checkpoint yet.".to_owned(),
        }
    }
}
