//! A kind of model: how a report reads, times and asks one. Language models are one kind
//! (`language_model.rs`), encoder-decoders the other (`encoder_decoder.rs`).

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use iiet_model::{ModelKind, model_kind};

use super::candidate::Outline;
use super::question::Asked;
use super::speed::Workload;
use crate::error::EvalError;
use crate::evaluation::{Evaluated, Prepared};
use crate::scorer::Progress;
use crate::task::Task;

/// A model in memory.
pub(super) trait Kind: Sized {
    /// What small files say of a model.
    fn outline(path: &Path, device: &Device) -> Result<Outline, EvalError>;

    /// What a task asks such models.
    ///
    /// # Errors
    /// [`EvalError::NeedsDecoder`] or [`EvalError::NeedsScorer`] for a task of the other kind.
    fn asked(task: &Task) -> Result<&'static [Asked], EvalError>;

    /// What speeds are measured on in a context of so many tokens; `None` if it is too short.
    fn workload(context: usize, tasks: &[Prepared]) -> Option<Workload>;

    fn load(path: &Path, device: &Device) -> Result<Self, EvalError>;

    /// Runs the workload once. The time does not depend on the token ids, so these are arbitrary.
    fn run(&self, workload: &Workload, device: &Device) -> Result<iiet_text::Speed, EvalError>;

    fn ask(
        &self,
        task: &Prepared,
        asked: Asked,
        progress: &dyn Progress,
    ) -> Result<Evaluated, EvalError>;
}

/// The kind of all models.
///
/// # Errors
/// [`EvalError::Nothing`] without models, [`EvalError::Kinds`] if there are two kinds, and errors of
/// directories.
pub fn kind_of(models: &[PathBuf]) -> Result<ModelKind, EvalError> {
    let mut first: Option<(&PathBuf, ModelKind)> = None;
    for path in models {
        let kind = model_kind(path)?;
        match first {
            Some((other, of_other)) if of_other != kind => {
                let (language_model, encoder_decoder) = match kind {
                    ModelKind::EncoderDecoder => (other, path),
                    _ => (path, other),
                };
                return Err(EvalError::Kinds {
                    language_model: language_model.clone(),
                    encoder_decoder: encoder_decoder.clone(),
                });
            }
            Some(_) => {}
            None => first = Some((path, kind)),
        }
    }
    let (_, kind) = first.ok_or(EvalError::Nothing { of: "model" })?;
    Ok(kind)
}

/// An arbitrary token of a vocabulary for the i-th place of a text.
pub(super) fn arbitrary(i: usize, vocab_size: usize) -> u32 {
    (i * 7919 % vocab_size) as u32
}
