//! What the benchmarks share: one training step, as `iiet train` takes it, on made-up tokens.

pub mod ratios;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use iiet_model::{CrossEntropy, LanguageModel, Precision};
use iiet_train::{AccumulatedGradients, ModelAdamW, Recompute, TrainSection};

/// The learning rate of every step; small, so that the first losses stay comparable.
const LR: f64 = 1e-4;

/// The `i`th token of a text without a pattern; `peers/torch_step.py` makes the same.
pub fn token(i: u64, vocab: usize) -> i64 {
    (i.wrapping_mul(2_654_435_761) % (1 << 32) % vocab as u64) as i64
}

/// A model, its optimiser and one batch that it trains on again and again.
pub struct TrainingStep {
    model: Option<LanguageModel>,
    optimizer: ModelAdamW,
    clip: f64,
    precision: Precision,
    recompute: Recompute,
    ids: Tensor<2, Int>,
    targets: Tensor<2, Int>,
}

impl TrainingStep {
    /// A batch of `batch` windows of `seq` tokens for a model that has no gradients yet.
    pub fn new(model: LanguageModel, train: &TrainSection, batch: usize, seq: usize) -> Self {
        let device = Device::default().autodiff();
        let vocab = model.config().vocab_size;
        let part = |from: usize| {
            let rows = (0..batch).flat_map(|row| {
                let first = row * (seq + 1) + from;
                (first..first + seq).map(|i| token(i as u64, vocab))
            });
            let ids: Vec<i64> = rows.collect();
            Tensor::from_data(TensorData::new::<i64, _>(ids, [batch, seq]), &device)
        };
        Self {
            model: Some(model.train()),
            optimizer: ModelAdamW::new(train),
            clip: train.clip,
            precision: train.precision,
            recompute: train.recompute,
            ids: part(0),
            targets: part(1),
        }
    }

    /// Forward pass, backward pass, clipping and update; returns the mean loss before the update,
    /// in nats per token.
    pub fn take(&mut self) -> f64 {
        let masters = self.model.take().expect("invariant: put back below");
        let model = masters.clone().in_precision(self.precision);
        let [batch, seq] = self.ids.dims();
        let tokens = (batch * seq) as f64;
        let weights = Tensor::ones([batch, seq], &self.ids.device());
        let (ids, targets) = (self.ids.clone(), self.targets.clone());
        let mut gradients = AccumulatedGradients::default();
        let sum = match self.recompute {
            Recompute::None => {
                let sum = model.loss(ids, targets, weights);
                gradients.add(&model, sum.backward());
                sum
            }
            Recompute::Layer => {
                let mut objective = CrossEntropy { targets, weights };
                model.objective_by_layers(ids, &mut objective, |part| {
                    gradients.add(&model, part);
                })
            }
        };
        let loss = f64::from(sum.into_scalar::<f32>()) / tokens;
        let clip = (self.clip * tokens / gradients.norm()).min(1.0);
        drop(model);
        let updated = self.optimizer.step(masters, gradients, clip / tokens, LR);
        self.model = Some(updated);
        loss
    }
}

/// The examples of the workspace's README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
