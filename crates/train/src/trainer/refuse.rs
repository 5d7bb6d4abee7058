//! Checks before anything is read or written.

use iiet_model::Precision;

use super::RunOptions;
use crate::{Devices, RunConfig, TrainError, TrainedModel, Vocabulary, memory};

pub(super) fn refuse_precision(precision: Precision, devices: &Devices) -> Result<(), TrainError> {
    let works = |precision: Precision| devices.all().all(|device| precision.works_on(device));
    match works(precision) {
        true => Ok(()),
        false => Err(TrainError::Value {
            key: "train.precision",
            found: precision.to_string(),
            allowed: format!("allowed on this device: {}", Precision::names(works)),
        }),
    }
}

/// Refuses a model without an id for each token of its tokenizer.
pub(super) fn refuse_vocabulary(config: &RunConfig, of_tokenizer: usize) -> Result<(), TrainError> {
    match config.model.vocab_size {
        Some(size) if size < of_tokenizer => Err(TrainError::Value {
            key: "model.vocab_size",
            found: size.to_string(),
            allowed: format!("allowed: {of_tokenizer}, the tokenizer's, and above"),
        }),
        _ => Ok(()),
    }
}

pub(super) fn refuse_what_does_not_fit<M: TrainedModel>(
    config: &RunConfig,
    vocab_size: usize,
    options: &RunOptions<'_>,
    devices: &Devices,
) -> Result<(), TrainError> {
    if options.on_host {
        // The final solver is assumed to be the most expensive one.
        let vocabulary = Vocabulary {
            size: vocab_size,
            document_end: None,
        };
        let wanted = M::of_run(config, vocabulary, config.train.steps);
        let mut model = M::empty(&wanted, devices.first())?;
        if let Some(drawn) = &config.train.iterations {
            model = model.with_corrections(drawn.most());
        }
        let mut memory = model.training_memory(&config.train, config.model.seq_len);
        memory.parameters += options.objective.footprint().bytes;
        if config.train.precision != Precision::F32 {
            // The rounded copy. Activations are assumed to be f32, because most operations convert
            // to it.
            memory.parameters +=
                model.step_cost().parameters * config.train.precision.bytes() as u64;
        }
        // Each of several devices on a host has a copy of everything in the same memory.
        let copies = devices.all().count() as u64;
        memory.parameters = memory.parameters.saturating_mul(copies);
        memory.activations = memory.activations.saturating_mul(copies);
        memory::check_host(&memory)?;
    }
    Ok(())
}
