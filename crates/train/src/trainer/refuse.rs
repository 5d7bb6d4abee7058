//! Checks before anything is read or written.

use iiet_model::Precision;

use super::RunOptions;
use crate::{Devices, RunConfig, RunMemory, TrainError, TrainedModel};

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
        let parallel = devices.parallel();
        let micro_batches = parallel.micro_batches(&config.train)?;
        let footprint = options.objective.footprint();
        let sharing = (parallel, micro_batches);
        let first = devices.first();
        let memory = RunMemory::of_run::<M>(config, vocab_size, footprint, sharing, first)?;
        memory.check_host(parallel.devices_per_rank)?;
    }
    Ok(())
}
