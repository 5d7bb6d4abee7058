//! Checks before anything is read or written.

use iiet_model::{Cost, LanguageModel, Precision, TrainingMemory};

use super::RunOptions;
use crate::{Devices, DrawnIterations, Recompute, RunConfig, TrainError, memory};

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

pub(super) fn refuse_what_does_not_fit(
    config: &RunConfig,
    vocab_size: usize,
    options: &RunOptions<'_>,
    devices: &Devices,
) -> Result<(), TrainError> {
    if options.on_host {
        // The final solver is assumed to be the most expensive one.
        let mut wanted = config.model.config(vocab_size, None);
        if let Some(drawn) = &config.train.iterations {
            let (layers, most) = (wanted.n_layers, drawn.most());
            wanted.solver = DrawnIterations::with_corrections(&wanted.solver, layers, most);
        }
        let model: LanguageModel = LanguageModel::empty(&wanted, devices.first())?;
        let (batch, seq) = (config.train.batch, config.model.seq_len);
        let mut memory = match config.train.recompute {
            Recompute::None => TrainingMemory::of(&model, batch, seq),
            Recompute::Layer => TrainingMemory::of_one_layer(&model, batch, seq),
        };
        memory.parameters += options.objective.footprint().bytes;
        if config.train.precision != Precision::F32 {
            // The rounded copy. Activations are assumed to be f32, because most operations convert
            // to it.
            memory.parameters +=
                Cost::of(&model).parameters * config.train.precision.bytes() as u64;
        }
        // Each of several devices on a host has a copy of everything in the same memory.
        let copies = devices.all().count() as u64;
        memory.parameters = memory.parameters.saturating_mul(copies);
        memory.activations = memory.activations.saturating_mul(copies);
        memory::check_host(&memory)?;
    }
    Ok(())
}
