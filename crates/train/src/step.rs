//! One training step: a pure function from a state and the batches of a step to the next state.
//!
//! ```text
//! g = sum over micro-batches of d loss / d parameters,   tokens = number of their targets
//! parameters = AdamW( parameters, g / tokens * min(1, clip / |g / tokens|), lr(step) )
//! ```
//!
//! A micro-batch's loss is a sum over its tokens. In half precision the gradients are those of a rounded
//! copy, applied to the f32 weights; in f16 the loss is scaled. [`train`](crate::train), the conformance
//! checks and the benchmarks all call this function.

mod copies;
mod loss_scale;
mod state;
mod sums;
mod update;

use std::collections::BTreeMap;
use std::time::Duration;

use iiet_data::{Batch, DataError};
use iiet_model::{Dropout, DropoutRates, LanguageModel, Precision};

use self::copies::{Losses, Worker};
pub(crate) use self::loss_scale::LossScale;
pub use self::state::TrainState;
use self::update::Update;
use crate::optimizer::ModelOptimizer;
use crate::{
    Devices, DrawnIterations, LearningRate, RankError, Recompute, Shard, TrainError, TrainSection,
    TrainedModel, TrainingObjective, Transfer,
};

/// The micro-batches of one step, loaded one at a time, so that each device holds one in memory.
pub trait MicroBatches: Sync {
    /// The number of micro-batches.
    fn count(&self) -> usize;

    /// The micro-batch at an index below [`count`](Self::count); repeated calls return the same.
    ///
    /// # Errors
    ///
    /// [`DataError`] if it cannot be read.
    fn get(&self, at: usize) -> Result<Batch, DataError>;
}

impl MicroBatches for [Batch] {
    fn count(&self) -> usize {
        self.len()
    }

    fn get(&self, at: usize) -> Result<Batch, DataError> {
        Ok(self[at].clone())
    }
}

/// Options of the passes through the model.
#[derive(Debug, Clone, Copy)]
pub struct Passes {
    /// The precision of the model copy that is differentiated.
    pub precision: Precision,
    /// What the backward pass recomputes.
    pub recompute: Recompute,
    /// Whether it is counted how many targets are the most likely token.
    pub accuracy: bool,
    /// What layers that take corrections take instead, in this step.
    pub corrections: Option<usize>,
    /// The share of the targets' probability that is spread over the vocabulary.
    pub label_smoothing: f64,
    /// The dropout of each micro-batch.
    pub dropout: StepDropout,
}

/// The dropout of a step, whose masks depend on the seed, the step and the micro-batch alone.
#[derive(Debug, Clone, Copy)]
pub struct StepDropout {
    /// The rates; without effect if they are zero.
    pub rates: DropoutRates,
    /// The run's RNG seed.
    pub seed: u64,
    /// The step, counted from 1.
    pub step: u64,
}

impl StepDropout {
    /// That of a micro-batch of the step, counted over all devices.
    fn at(&self, micro_batch: usize) -> Option<Dropout> {
        let Self { rates, seed, step } = *self;
        let dropout = Dropout::new(rates, seed, step, micro_batch as u64);
        let dropout = dropout.expect("invariant: the rates are checked with the configuration");
        (!rates.are_zero()).then_some(dropout)
    }
}

/// The measurements of an update.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Figures {
    /// The loss before the update, in nats per token.
    pub loss: f64,
    /// The loss's terms by name, in nats per token, if there are several.
    pub terms: BTreeMap<String, f64>,
    /// The share of the targets that were the most likely token before the update, if it was asked for.
    pub accuracy: Option<f64>,
    /// The update's learning rate.
    pub lr: f64,
    /// Global norm of the gradient per token, before clipping.
    pub grad_norm: f64,
    /// Number of targets in the step.
    pub tokens: u64,
    /// Number of tokens of their sources; 0 without.
    pub source_tokens: u64,
    /// The time that this process waited for gradients and weights of others.
    pub exchange: Duration,
}

/// The training step: objective, options and devices.
#[derive(Debug)]
pub struct Stepper<'a> {
    workers: Vec<Worker>,
    devices: &'a Devices,
    passes: Passes,
    /// The maximum gradient norm; 0 disables clipping.
    clip: f64,
    schedule: LearningRate,
    /// Corrections of each step.
    drawn: Option<DrawnIterations>,
    seed: u64,
    shard: Shard,
    transfer: Transfer,
}

/// A failed step, which leaves the state unchanged, unless another process has failed: then the processes may
/// have different states, and must not go on.
#[derive(Debug)]
pub struct NotTaken<M = LanguageModel> {
    /// The state.
    pub state: Box<TrainState<M>>,
    /// The reason.
    pub reason: StepError,
}

/// The reason why a step failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// A batch that cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Batches without a target of positive weight, so that there is no mean loss.
    #[error("no target has a positive weight")]
    NoTargets,
    /// A non-finite loss or gradient.
    #[error("the {what} is {value}")]
    NonFinite {
        /// Loss or gradient norm.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// Another process that does not take part.
    #[error(transparent)]
    Ranks(#[from] RankError),
}

impl<'a> Stepper<'a> {
    /// Training steps for an objective, with the options of a configuration.
    pub fn new(
        objective: &dyn TrainingObjective,
        train: &TrainSection,
        devices: &'a Devices,
    ) -> Self {
        Self {
            workers: devices
                .all()
                .map(|device| Worker {
                    device: device.clone(),
                    objective: objective.on(device),
                })
                .collect(),
            devices,
            passes: Passes {
                precision: train.precision,
                recompute: train.recompute,
                accuracy: false,
                corrections: None,
                label_smoothing: train.label_smoothing,
                dropout: StepDropout {
                    rates: train.dropout,
                    seed: train.seed,
                    step: 0,
                },
            },
            clip: train.clip,
            schedule: LearningRate::new(train),
            drawn: train.iterations,
            seed: train.seed,
            shard: train.shard,
            transfer: train.transfer,
        }
    }

    /// Whether steps also measure accuracy, for which all logits are computed once more.
    pub fn measuring_accuracy(mut self, measured: bool) -> Self {
        self.passes.accuracy = measured;
        self
    }

    /// The state before the first step, from a model without autodiff and an optimizer, both on the first
    /// device.
    pub fn start<M: TrainedModel>(&self, model: &M, optimizer: ModelOptimizer) -> TrainState<M> {
        TrainState {
            copies: copies::copies(model, optimizer, self.devices),
            step: 0,
            tokens: 0,
            loss_scale: LossScale::of(self.passes.precision),
        }
    }

    /// Computes one step.
    ///
    /// # Errors
    ///
    /// [`NotTaken`] with the unchanged state, if a batch cannot be read, or if the loss or its gradient is
    /// not finite.
    pub fn step<M: TrainedModel, B: MicroBatches + ?Sized>(
        &mut self,
        mut state: TrainState<M>,
        batches: &B,
    ) -> Result<(TrainState<M>, Figures), Box<NotTaken<M>>> {
        let step = state.step + 1;
        self.passes.corrections = self.drawn.map(|drawn| drawn.at(self.seed, step));
        self.passes.dropout.step = step;
        let sums = loop {
            let reason = match self.sums(&mut state, batches) {
                Ok(sums) => match sums.non_finite() {
                    None if sums.losses.tokens == 0 => StepError::NoTargets,
                    None => break sums,
                    Some(_) if state.loss_scale.as_mut().is_some_and(LossScale::retreat) => {
                        continue;
                    }
                    Some((what, value)) => StepError::NonFinite { what, value },
                },
                Err(error) => error,
            };
            let state = Box::new(state);
            return Err(Box::new(NotTaken { state, reason }));
        };
        if let Some(scale) = &mut state.loss_scale {
            scale.held();
        }
        let Losses {
            nats,
            terms,
            tokens,
            source_tokens,
            right,
        } = sums.losses;
        let of_token = |sum: f64| sum / tokens as f64;
        let (loss, grad_norm) = (of_token(nats), of_token(sums.norm));
        let clip = match self.clip {
            0.0 => 1.0,
            limit => (limit / grad_norm).min(1.0),
        };
        let lr = self.schedule.at(state.step + 1);
        let (step, tokens_before, loss_scale) = (state.step + 1, state.tokens, state.loss_scale);
        let inputs = state.copies.into_iter().zip(sums.gradients).collect();
        let update = Update {
            scale: of_token(clip),
            lr,
            names: sums.names,
        };
        let mut waited = sums.waited;
        let (copies, failed) = self.updated(inputs, update, &mut waited);
        let state = TrainState {
            copies,
            step,
            tokens: tokens_before + tokens,
            loss_scale,
        };
        if let Some(error) = failed {
            let (state, reason) = (Box::new(state), StepError::Ranks(error));
            return Err(Box::new(NotTaken { state, reason }));
        }
        let terms = terms
            .into_iter()
            .map(|(name, sum)| (name.to_owned(), of_token(sum)))
            .collect();
        let figures = Figures {
            loss,
            terms,
            accuracy: self.passes.accuracy.then(|| of_token(right as f64)),
            lr,
            grad_norm,
            tokens,
            source_tokens,
            exchange: waited,
        };
        Ok((state, figures))
    }

    /// The same state with another solver.
    ///
    /// # Errors
    ///
    /// [`TrainError::Model`] if the solver is invalid for the model.
    pub fn with_solver<M: TrainedModel>(
        &self,
        mut state: TrainState<M>,
        wanted: &M::Config,
        seed: u64,
    ) -> Result<TrainState<M>, TrainError> {
        for (copy, device) in state.copies.iter_mut().zip(self.devices.all()) {
            let model = copy.model.valid();
            copy.model = model.configured(wanted, seed, device)?.train();
        }
        Ok(state)
    }
}
