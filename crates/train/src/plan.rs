//! A plan before a run over several ranks: memory, bytes sent, time of a step, efficiency.
//!
//! ```text
//! m micro-batches of a step on each of N ranks x K devices, s seconds each; u seconds of an update
//! g, w seconds to send gradients and weights:  bytes / bandwidth
//! h    of g is hidden behind the backward pass of the last micro-batch, if the gradients come layer by layer
//!
//! step       = m s + u + g - h + w
//! efficiency = (N K m s + u) / (N K step)
//! ```
//!
//! The sum over the devices of one rank is not counted, nor is the latency of messages.

mod measure;
#[cfg(test)]
mod tests;

use burn::tensor::Device;
use iiet_model::{EncoderDecoder, LanguageModel};
use serde::Serialize;

use crate::parallel::BUCKET;
use crate::{
    Footprint, OptimizerKind, Parallel, Recompute, RunConfig, RunMemory, Sent, Shard, StepCost,
    TrainError, TrainSection, TrainedModel, TrainingObjective, Vocabulary,
};

/// Where a run is planned for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machines {
    /// Ranks and their devices.
    pub parallel: Parallel,
    /// What a rank sends in a second, in bytes.
    pub bandwidth: f64,
    /// The memory of a device, in bytes.
    pub memory: Option<u64>,
}

/// The speed of one device, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Speed {
    /// Forward and backward pass of a micro-batch.
    pub micro_batch: f64,
    /// Norm, clipping and update.
    pub update: f64,
}

/// The time of a step, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StepTime {
    /// Forward and backward passes.
    pub computed: f64,
    /// The update.
    pub updated: f64,
    /// The exchange.
    pub exchanged: f64,
    /// The part of the exchange behind the last backward pass.
    pub hidden: f64,
    /// The step.
    pub step: f64,
}

/// A change of the configuration with which a device needs less memory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Remedy {
    /// The keys and their values.
    pub set: String,
    /// Bytes that a device then needs.
    pub bytes: u64,
}

/// The plan of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Number of parameters.
    pub parameters: u64,
    /// Evaluations of blocks per token.
    pub evaluations: usize,
    /// Ranks and their devices.
    pub parallel: Parallel,
    /// Micro-batches of each device in a step.
    pub micro_batches: usize,
    /// Tokens of a step on all devices, padding included.
    pub tokens_per_step: u64,
    /// Operations of a micro-batch.
    pub micro_batch_flops: f64,
    /// The memory of a device.
    pub memory: RunMemory,
    /// Its peak.
    pub memory_peak: u64,
    /// What does not fit is the difference to this.
    pub memory_of_device: Option<u64>,
    /// What needs less, if it does not fit.
    pub remedies: Vec<Remedy>,
    /// What each rank sends in a step.
    pub sent: Sent,
    /// The speed of one device.
    pub speed: Speed,
    /// The time of a step.
    pub time: StepTime,
    /// The time of the same step on one device, in seconds.
    pub one_device: f64,
    /// That time by the devices, as a share of the step's.
    pub efficiency: f64,
    /// Tokens per second of all devices.
    pub tokens_per_second: f64,
}

/// What is planned: a configuration and its objective.
#[derive(Debug)]
pub struct Workload<'a> {
    config: RunConfig,
    objective: &'a dyn TrainingObjective,
    cost: StepCost,
    /// Of the models that are not allocated.
    device: &'a Device,
}

impl<'a> Workload<'a> {
    /// Reads a model's sizes from its configuration. Its weights are not allocated.
    ///
    /// # Errors
    ///
    /// [`TrainError`] if the configuration is invalid or has another objective.
    pub fn new(
        config: &RunConfig,
        objective: &'a dyn TrainingObjective,
        device: &'a Device,
    ) -> Result<Self, TrainError> {
        config.validate()?;
        let config = config.claimed_by(objective)?;
        let cost = match config.model.encoder {
            Some(_) => cost::<EncoderDecoder>(&config, device)?,
            None => cost::<LanguageModel>(&config, device)?,
        };
        Ok(Self {
            config,
            objective,
            cost,
            device,
        })
    }

    /// The operations of a micro-batch: a forward pass, twice as many in the backward pass, one more forward pass if
    /// layers are recomputed, and those of the objective. Every source is as long as its target.
    pub fn micro_batch_flops(&self) -> f64 {
        let train = &self.config.train;
        let passes = match train.recompute {
            Recompute::None => 3.0,
            Recompute::Layer => 4.0,
        };
        let forward = self.cost.flops_per_token + self.cost.flops_per_source_token;
        let per_token = passes * forward + self.objective.footprint().flops_per_token;
        per_token * train.micro_batch_tokens(self.config.model.seq_len) as f64
    }

    /// The speed of a device that computes so many operations per second in training. The update is not counted.
    pub fn speed_at(&self, flops_per_second: f64) -> Speed {
        Speed {
            micro_batch: self.micro_batch_flops() / flops_per_second,
            update: 0.0,
        }
    }

    /// The memory of each device.
    ///
    /// # Errors
    ///
    /// [`TrainError::Value`] if the micro-batches cannot be divided evenly.
    pub fn memory(&self, parallel: Parallel) -> Result<RunMemory, TrainError> {
        let micro_batches = parallel.micro_batches(&self.config.train)?;
        self.memory_with(&self.config.train, (parallel, micro_batches))
    }

    /// That of another `[train]`.
    fn memory_with(
        &self,
        train: &TrainSection,
        sharing: (Parallel, usize),
    ) -> Result<RunMemory, TrainError> {
        let config = &RunConfig {
            train: train.clone(),
            ..self.config.clone()
        };
        let vocab_size = config.data.expected_vocab_size();
        let footprint: Footprint = self.objective.footprint();
        let of_run = match config.model.encoder {
            Some(_) => RunMemory::of_run::<EncoderDecoder>,
            None => RunMemory::of_run::<LanguageModel>,
        };
        of_run(config, vocab_size, footprint, sharing, self.device)
    }

    /// The plan for devices of such a speed.
    ///
    /// # Errors
    ///
    /// [`TrainError::Value`] if the micro-batches cannot be divided evenly.
    pub fn plan(&self, machines: &Machines, speed: Speed) -> Result<Plan, TrainError> {
        let Machines {
            parallel,
            bandwidth,
            memory: of_device,
        } = *machines;
        let train = &self.config.train;
        let micro_batches = parallel.micro_batches(train)?;
        let memory = self.memory(parallel)?;
        let fits = of_device.is_none_or(|of_device| memory.total() <= of_device);
        let sent = Sent::of(self.cost.parameters, train, parallel.ranks);
        let seconds = [sent.gradients, sent.weights].map(|bytes| bytes as f64 / bandwidth);
        let buckets = (4 * self.cost.parameters).div_ceil(BUCKET);
        let time = StepTime::of(train, speed, (parallel, micro_batches), seconds, buckets);
        let one_device = train.accumulation as f64 * speed.micro_batch + speed.update;
        let tokens = train.micro_batch_tokens(self.config.model.seq_len) as u64;
        let tokens_per_step = tokens.saturating_mul(train.accumulation as u64);
        Ok(Plan {
            parameters: self.cost.parameters,
            evaluations: self.cost.evaluations,
            parallel,
            micro_batches,
            tokens_per_step,
            micro_batch_flops: self.micro_batch_flops(),
            memory,
            memory_peak: memory.total(),
            memory_of_device: of_device,
            remedies: match fits {
                true => Vec::new(),
                false => self.remedies((parallel, micro_batches))?,
            },
            sent,
            speed,
            time,
            one_device,
            efficiency: one_device / parallel.count() as f64 / time.step,
            tokens_per_second: tokens_per_step as f64 / time.step,
        })
    }

    /// Changes that need less memory, each by itself and then all of them together.
    fn remedies(&self, sharing: (Parallel, usize)) -> Result<Vec<Remedy>, TrainError> {
        let train = &self.config.train;
        type Change = fn(&mut TrainSection);
        let mut changes: Vec<(&str, Change)> = Vec::new();
        let adamw = train.optimizer == OptimizerKind::AdamW;
        if sharing.0.ranks > 1 && train.shard == Shard::None && adamw {
            let set: Change = |train| train.shard = Shard::Optimizer;
            changes.push(("train.shard=optimizer", set));
        }
        if train.recompute == Recompute::None {
            let set: Change = |train| train.recompute = Recompute::Layer;
            changes.push(("train.recompute=layer", set));
        }
        if train.batch > 1 {
            let set: Change = |train| train.batch = 1;
            changes.push(("train.batch=1", set));
        }
        let needed = self.memory_with(train, sharing)?.total();
        let mut all = train.clone();
        let mut remedies: Vec<Remedy> = Vec::new();
        for (set, change) in changes {
            let mut one = train.clone();
            change(&mut one);
            let bytes = self.memory_with(&one, sharing)?.total();
            if bytes < needed {
                change(&mut all);
                let set = set.to_owned();
                remedies.push(Remedy { set, bytes });
            }
        }
        if remedies.len() > 1 {
            let set: Vec<&str> = remedies.iter().map(|one| one.set.as_str()).collect();
            let set = set.join(", ");
            let bytes = self.memory_with(&all, sharing)?.total();
            remedies.push(Remedy { set, bytes });
        }
        Ok(remedies)
    }
}

impl StepTime {
    /// For seconds to send gradients and weights, in so many buckets.
    fn of(
        train: &TrainSection,
        speed: Speed,
        (parallel, micro_batches): (Parallel, usize),
        [gradients, weights]: [f64; 2],
        buckets: u64,
    ) -> Self {
        let computed = micro_batches as f64 * speed.micro_batch;
        let updated = match train.shard {
            Shard::None => speed.update,
            Shard::Optimizer => speed.update / parallel.ranks as f64,
        };
        let hidden = match train.recompute {
            Recompute::None => 0.0,
            // Of the four passes three are the backward pass. The last bucket is full only when it is over.
            Recompute::Layer => {
                let but_the_last = gradients * (buckets - 1) as f64 / buckets as f64;
                but_the_last.min(0.75 * speed.micro_batch)
            }
        };
        let exchanged = gradients + weights;
        Self {
            computed,
            updated,
            exchanged,
            hidden,
            step: computed + updated + exchanged - hidden,
        }
    }
}

/// The model of a run's end, as [`RunMemory`] assumes it.
fn of_end<M: TrainedModel>(config: &RunConfig) -> M::Config {
    let vocabulary = Vocabulary {
        size: config.data.expected_vocab_size(),
        document_end: None,
    };
    M::of_run(config, vocabulary, config.train.steps)
}

fn cost<M: TrainedModel>(config: &RunConfig, device: &Device) -> Result<StepCost, TrainError> {
    Ok(M::empty(&of_end::<M>(config), device)?.step_cost())
}
