//! Writing checkpoints on the way, and knowing the last one.

use std::path::PathBuf;

use burn::module::Module;

use super::Trainer;
use crate::TrainError;
use crate::checkpoint::{self, Contents, State};
use crate::evaluate::Evaluation;

/// The newest checkpoint and the step it stands after.
pub(super) struct LastCheckpoint {
    pub(super) step: u64,
    pub(super) path: PathBuf,
}

impl Trainer<'_> {
    pub(super) fn write_checkpoint(
        &mut self,
        evaluation: Option<&Evaluation>,
    ) -> Result<PathBuf, TrainError> {
        if let Some(Evaluation { loss, .. }) = evaluation
            && !loss.is_finite()
        {
            return Err(self.broken(format!("the validation loss is {loss}")));
        }
        let mut state = State::after(
            self.step,
            self.tokens,
            self.config,
            &self.batches,
            &self.identity,
        );
        state.validation_loss = evaluation.map(|evaluation| evaluation.loss);
        state.loss_scale = self.loss_scale;
        let contents = Contents {
            state,
            model: &self.replicas.first.model.valid(),
            optimizer: &self.replicas.first.optimizer,
            tokenizer: &self.corpus.tokenizer,
            config: &self.config_text,
        };
        let path =
            checkpoint::write(&self.run, contents, self.config.train.keep).map_err(|error| {
                match checkpoint::not_finite(&error) {
                    Some(name) => self.broken(format!("{name} holds a value that is not finite")),
                    None => error,
                }
            })?;
        self.checkpoint = Some(LastCheckpoint {
            step: self.step,
            path: path.clone(),
        });
        Ok(path)
    }

    fn broken(&self, what: String) -> TrainError {
        TrainError::Broken {
            step: self.step,
            what,
            checkpoint: self.last_checkpoint(),
        }
    }

    /// Where the last good state is, as a sentence.
    pub(super) fn last_checkpoint(&self) -> String {
        match &self.checkpoint {
            Some(last) => format!("The last checkpoint is {}.", last.path.display()),
            None => "There is no checkpoint yet.".to_owned(),
        }
    }
}
