//! `[train]`: optimisation and output.

use std::path::PathBuf;

use iiet_data::BatchSize;
use iiet_model::{DropoutRates, ModelError, Precision};
use serde::{Deserialize, Serialize};

use super::{DrawnIterations, Stage, by_name};
use crate::schedule::ScheduleKind;
use crate::{OptimizerKind, TrainError};

/// `[train]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSection {
    /// Optimiser steps.
    pub steps: u64,
    /// Sequences per micro-batch; 0 where `batch_tokens` decides.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub batch: usize,
    /// The most tokens of a micro-batch on either side, padding included, for pairs of source and target: as
    /// many pairs of similar lengths as fit, instead of a number of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_tokens: Option<usize>,
    /// Micro-batches per step (gradient accumulation).
    #[serde(default = "one")]
    pub accumulation: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Steps of linear warm-up.
    #[serde(default)]
    pub warmup: u64,
    /// The learning rate schedule after the warm-up.
    #[serde(default)]
    pub schedule: ScheduleKind,
    /// The share of the steps over which `wsd` decays.
    #[serde(default = "default_decay")]
    pub decay: f64,
    /// The final learning rate, as a share of the peak.
    #[serde(default = "default_final_lr")]
    pub final_lr: f64,
    /// What the matrices of the blocks are updated by; everything else is by AdamW.
    #[serde(default, skip_serializing_if = "is_default")]
    pub optimizer: OptimizerKind,
    /// Decay of Muon's momentum.
    #[serde(
        default = "default_momentum",
        skip_serializing_if = "is_default_momentum"
    )]
    pub momentum: f64,
    /// What the learning rate of the blocks of iterated layers is multiplied by.
    #[serde(default = "one_f64", skip_serializing_if = "is_one")]
    pub iterated_lr: f64,
    /// The share of the targets' probability that is spread over the vocabulary (label smoothing).
    #[serde(default, skip_serializing_if = "is_zero_f64")]
    pub label_smoothing: f64,
    /// Probabilities with which elements are dropped in training, and nowhere else.
    #[serde(default, skip_serializing_if = "DropoutRates::are_zero")]
    pub dropout: DropoutRates,
    /// Decoupled weight decay of matrices; norms and solver coefficients are not decayed.
    #[serde(default = "default_weight_decay")]
    pub weight_decay: f64,
    /// Decay of the first moment.
    #[serde(default = "default_beta_1")]
    pub beta_1: f64,
    /// Decay of the second moment.
    #[serde(default = "default_beta_2")]
    pub beta_2: f64,
    /// The maximum global norm of the gradient; 0 disables clipping.
    #[serde(default = "default_clip")]
    pub clip: f64,
    /// The precision of matrices and activations in the passes through the model. Master weights, optimiser
    /// state, gradients to parameters and the loss are always f32.
    #[serde(default, with = "by_name")]
    pub precision: Precision,
    /// What the backward pass recomputes instead of keeping it.
    #[serde(default)]
    pub recompute: Recompute,
    /// What is divided among the processes of a run, instead of being copied to each.
    #[serde(default, skip_serializing_if = "is_default")]
    pub shard: Shard,
    /// The format in which processes send each other gradients; sums are f32.
    #[serde(default, skip_serializing_if = "is_default")]
    pub transfer: Transfer,
    /// RNG seed of weights, batches and samples.
    #[serde(default)]
    pub seed: u64,
    /// A model directory with the initial weights, instead of random ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// Whether weights of the blocks' matrices that are exactly zero stay zero: those of a pruned model.
    #[serde(default, skip_serializing_if = "is_false")]
    pub keep_zeros: bool,
    /// Steps between lines of `metrics.jsonl`.
    #[serde(default = "default_log_every")]
    pub log_every: u64,
    /// Steps between validations.
    #[serde(default = "default_eval_every")]
    pub eval_every: u64,
    /// Tokens of the validation text that are evaluated.
    #[serde(default = "default_eval_tokens")]
    pub eval_tokens: u64,
    /// Steps between samples of text; 0 disables them.
    #[serde(default)]
    pub sample_every: u64,
    /// The prompt of samples.
    #[serde(default)]
    pub sample_prompt: String,
    /// Steps between checkpoints; 0 writes one at the end only.
    #[serde(default)]
    pub checkpoint_every: u64,
    /// The number of checkpoints that are kept.
    #[serde(default = "default_keep")]
    pub keep: usize,
    /// Corrections drawn for each step, in the layers that take any; none means those of the solver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iterations: Option<DrawnIterations>,
    /// Solvers of successive stages, ending with the model's; by default the model's throughout.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Stage>,
}

/// What the backward pass recomputes: time for memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// Nothing: the activations of all evaluations are kept.
    #[default]
    None,
    /// Every layer's evaluations; its input and the states of a history are kept.
    Layer,
}

/// What is divided among the processes of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shard {
    /// Nothing.
    #[default]
    None,
    /// The optimiser's moments: each process updates its part of every parameter (ZeRO, arXiv 1910.02054,
    /// stage 1).
    Optimizer,
}

/// The format of gradients between processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transfer {
    /// Exact.
    #[default]
    F32,
    /// Each gradient is rounded before it is summed, and each sum before it is sent on: half the bytes.
    Bf16,
}

impl Transfer {
    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

fn one() -> usize {
    1
}
fn is_false(value: &bool) -> bool {
    !value
}
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
fn default_momentum() -> f64 {
    0.95
}
fn is_default_momentum(momentum: &f64) -> bool {
    *momentum == default_momentum()
}
fn is_zero(count: &usize) -> bool {
    *count == 0
}
fn is_zero_f64(share: &f64) -> bool {
    *share == 0.0
}
fn one_f64() -> f64 {
    1.0
}
fn is_one(factor: &f64) -> bool {
    *factor == 1.0
}
fn default_decay() -> f64 {
    0.2
}
fn default_final_lr() -> f64 {
    0.1
}
fn default_weight_decay() -> f64 {
    0.1
}
fn default_beta_1() -> f64 {
    0.9
}
fn default_beta_2() -> f64 {
    0.95
}
fn default_clip() -> f64 {
    1.0
}
fn default_log_every() -> u64 {
    10
}
fn default_eval_every() -> u64 {
    250
}
fn default_eval_tokens() -> u64 {
    65_536
}
fn default_keep() -> usize {
    2
}

impl TrainSection {
    pub(super) fn validate(&self) -> Result<(), TrainError> {
        let refuse = |key, found: String, allowed: &str| {
            let allowed = allowed.to_owned();
            Err(TrainError::Value {
                key,
                found,
                allowed,
            })
        };
        if self.shard == Shard::Optimizer && self.optimizer == OptimizerKind::Muon {
            let allowed =
                "allowed with train.optimizer = \"muon\", which updates whole matrices: none";
            return refuse("train.shard", "optimizer".into(), allowed);
        }
        for (key, value) in [
            ("train.steps", self.steps),
            ("train.log_every", self.log_every),
            ("train.eval_every", self.eval_every),
            ("train.eval_tokens", self.eval_tokens),
            ("train.keep", self.keep as u64),
        ] {
            if value == 0 || value > 1 << 40 {
                return refuse(key, value.to_string(), "allowed: 1 to 2^40");
            }
        }
        // Bounds the number of micro-batches of a run, and of tokens per step, to 64 bits.
        let rows = match (self.batch, self.batch_tokens) {
            (0, Some(tokens)) => ("train.batch_tokens", tokens as u64),
            (_, None) => ("train.batch", self.batch as u64),
            (_, Some(tokens)) => {
                let allowed = "allowed: instead of train.batch, not beside it";
                return refuse("train.batch_tokens", tokens.to_string(), allowed);
            }
        };
        for (key, value) in [rows, ("train.accumulation", self.accumulation as u64)] {
            if value == 0 || value > 1 << 20 {
                return refuse(key, value.to_string(), "allowed: 1 to 2^20");
            }
        }
        self.dropout.validate().map_err(ModelError::from)?;
        if !(0.0..1.0).contains(&self.label_smoothing) {
            let found = self.label_smoothing.to_string();
            return refuse(
                "train.label_smoothing",
                found,
                "allowed: 0 up to but not including 1",
            );
        }
        if self.warmup > self.steps {
            let allowed = format!("allowed: at most train.steps, {}", self.steps);
            return refuse("train.warmup", self.warmup.to_string(), &allowed);
        }
        if !(self.lr.is_finite() && self.lr > 0.0) {
            return refuse(
                "train.lr",
                self.lr.to_string(),
                "allowed: finite and above 0",
            );
        }
        for (key, value) in [
            ("train.decay", self.decay),
            ("train.final_lr", self.final_lr),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return refuse(key, value.to_string(), "allowed: 0 to 1");
            }
        }
        if self.keep_zeros && self.init.is_none() {
            let allowed = "allowed with train.init alone: random weights have no zeros";
            return refuse("train.keep_zeros", "true".into(), allowed);
        }
        if !(self.iterated_lr.is_finite() && self.iterated_lr > 0.0) {
            let found = self.iterated_lr.to_string();
            return refuse("train.iterated_lr", found, "allowed: finite and above 0");
        }
        if self.momentum != default_momentum() && self.optimizer != OptimizerKind::Muon {
            let found = self.momentum.to_string();
            return refuse(
                "train.momentum",
                found,
                "allowed with train.optimizer = \"muon\" alone",
            );
        }
        for (key, value) in [
            ("train.beta_1", self.beta_1),
            ("train.beta_2", self.beta_2),
            ("train.momentum", self.momentum),
        ] {
            if !(0.0..1.0).contains(&value) {
                return refuse(
                    key,
                    value.to_string(),
                    "allowed: 0 up to but not including 1",
                );
            }
        }
        for (key, value) in [
            ("train.weight_decay", self.weight_decay),
            ("train.clip", self.clip),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return refuse(key, value.to_string(), "allowed: finite, 0 or above");
            }
        }
        let shares: Vec<f64> = self.stages.iter().map(|stage| stage.share).collect();
        let sum: f64 = shares.iter().sum();
        let sensible = shares.iter().all(|share| *share > 0.0) && (sum - 1.0).abs() < 1e-6;
        if !shares.is_empty() && !sensible {
            let found = format!("a list of shares {shares:?}");
            return refuse("train.stages", found, "shares must be above 0 and sum to 1");
        }
        Ok(())
    }

    /// The size of a micro-batch.
    pub fn size(&self) -> BatchSize {
        match self.batch_tokens {
            Some(tokens) => BatchSize::Tokens(tokens),
            None => BatchSize::Rows(self.batch),
        }
    }

    /// The tokens of a micro-batch, padding included: of texts of `seq_len` tokens, or the most on either side.
    pub fn micro_batch_tokens(&self, seq_len: usize) -> usize {
        self.batch_tokens
            .unwrap_or_else(|| self.batch.saturating_mul(seq_len))
    }

    /// Refuses what a run on a task has no use for.
    pub(super) fn validate_of_task(&self) -> Result<(), TrainError> {
        match self.sample_every {
            0 => Ok(()),
            found => Err(TrainError::Value {
                key: "train.sample_every",
                found: found.to_string(),
                allowed:
                    "allowed: 0 on a task, whose targets are no continuation of its inputs; the \
                          accuracy is logged"
                        .to_owned(),
            }),
        }
    }

    /// The first step of each stage.
    pub fn stage_starts(&self) -> Vec<u64> {
        let mut before = 0.0;
        let mut starts = Vec::with_capacity(self.stages.len());
        for stage in &self.stages {
            starts.push((before * self.steps as f64).round() as u64);
            before += stage.share;
        }
        starts
    }

    /// The stage of the update after `step`; none without stages.
    pub(crate) fn stage_at(&self, step: u64) -> Option<usize> {
        self.stage_starts().iter().rposition(|start| *start <= step)
    }
}
