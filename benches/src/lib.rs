//! Shared by the benchmarks: one training step, as in `iiet train`, on synthetic tokens.

pub mod ratios;

use std::env;
use std::path::PathBuf;

use burn::tensor::Device;
use iiet_data::{Batch, Sources};
use iiet_model::LanguageModel;
use iiet_train::{
    Devices, ModelOptimizer, NextToken, ScheduleKind, Stepper, TrainSection, TrainState,
    TrainedModel,
};

/// This package's folder in the clone that runs, which need not be the one that compiled: see `manifest_folder` of
/// xtask.
pub fn folder() -> PathBuf {
    let folder = env::var_os("CARGO_MANIFEST_DIR");
    folder.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// A configuration by its name, below `configs` of the workspace.
pub fn preset(name: &str) -> PathBuf {
    folder().join(format!("../configs/{name}.toml"))
}

/// The learning rate of every step; small, so that the first losses stay comparable.
const LR: f64 = 1e-4;

/// The `i`th token of a text without a pattern, the same as in `peers/torch_step.py`.
pub fn token(i: u64, vocab: usize) -> i64 {
    (i.wrapping_mul(2_654_435_761) % (1 << 32) % vocab as u64) as i64
}

/// Repeated training on one batch.
pub struct TrainingStep<M = LanguageModel> {
    stepper: Stepper<'static>,
    /// `None` only during a step.
    state: Option<TrainState<M>>,
    batches: [Batch; 1],
}

impl<M: TrainedModel> TrainingStep<M> {
    /// A batch of `batch` windows of `seq` tokens, for a model without gradients so far. The source of a window,
    /// if the model needs one, is the window backwards.
    pub fn new(model: M, train: &TrainSection, batch: usize, seq: usize) -> Self {
        // Leaked: there are only a few per process.
        let devices: &'static Devices = Box::leak(Box::new(Devices::one(Device::default())));
        let vocab = M::vocab_size(&model.current());
        let part = |from: usize| -> Vec<u32> {
            let rows = (0..batch).flat_map(|row| {
                let first = row * (seq + 1) + from;
                (first..first + seq).map(|i| token(i as u64, vocab) as u32)
            });
            rows.collect()
        };
        let batches = [Batch {
            inputs: part(0),
            targets: part(1),
            weights: vec![1.0; batch * seq],
            batch,
            seq,
            source: Some(Sources {
                ids: part(0)
                    .chunks(seq)
                    .flat_map(|row| row.iter().rev().copied())
                    .collect(),
                lengths: vec![seq; batch],
                seq,
            }),
        }];
        // A constant learning rate.
        let train = TrainSection {
            lr: LR,
            warmup: 0,
            schedule: ScheduleKind::Wsd,
            decay: 0.0,
            steps: u64::MAX,
            ..train.clone()
        };
        let stepper = Stepper::new(&NextToken, &train, devices);
        let state = stepper.start(&model, ModelOptimizer::new(&train));
        Self {
            stepper,
            state: Some(state),
            batches,
        }
    }

    /// Forward pass, backward pass, clipping and update, as in [`iiet_train::train`]; returns the mean loss
    /// before the update, in nats per token.
    pub fn take(&mut self) -> f64 {
        let state = self.state.take().expect("invariant: put back below");
        let taken = self.stepper.step(state, self.batches.as_slice());
        let (state, figures) = taken.expect("invariant: a batch in memory and a finite loss");
        self.state = Some(state);
        figures.loss
    }
}
