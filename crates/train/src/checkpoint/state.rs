//! `state.json`: the progress of a run, and what it depends on.
//!
//! Batches, learning rates and random numbers are functions of the seed and the step, so resuming needs
//! little of this; the rest is compared. A checkpoint whose data position does not follow from its step, or
//! that belongs to another corpus, is rejected.

use std::collections::BTreeMap;

use iiet_data::{Corpus, PreparedSource, TokenFile, TrainingBatches};
use serde::{Deserialize, Serialize};

use crate::step::LossScale;
use crate::{LearningRate, RunConfig, ScheduleKind};

/// The version of the format.
pub(super) const FORMAT: u32 = 1;

/// The progress of a run after a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    pub(crate) format: u32,
    /// Number of optimiser steps.
    pub(crate) step: u64,
    /// Number of tokens trained on.
    pub(crate) tokens: u64,
    /// Validation loss of these weights, in nats per token, if measured.
    pub(crate) validation_loss: Option<f64>,
    pub(crate) data: DataPosition,
    pub(crate) random: RandomState,
    pub(crate) schedule: ScheduleState,
    /// The stage of the last update; none if the run has no stages or before the first update.
    pub(crate) stage: Option<StageState>,
    pub(crate) identity: Identity,
    /// The loss scale of the next step, if the precision needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) loss_scale: Option<LossScale>,
    /// Number of updates of each parameter's moments.
    pub(crate) updates: BTreeMap<String, usize>,
}

/// The position in the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataPosition {
    /// Number of micro-batches.
    pub(crate) micro_batches: u64,
    /// Number of rows of each source.
    pub(crate) rows: Vec<u64>,
}

/// The state of the RNG: every stream is determined by the seed and the step or epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RandomState {
    pub(crate) generator: String,
    pub(crate) seed: u64,
}

/// The state of the learning rate schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScheduleState {
    pub(crate) kind: ScheduleKind,
    /// Total number of steps.
    pub(crate) steps: u64,
    /// The learning rate of the next update.
    pub(crate) next_lr: f64,
}

/// The stage of the last update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StageState {
    /// Index, from 0.
    pub(crate) index: usize,
    pub(crate) solver: String,
}

/// Hashes of what must not change during a run, blake3 in hexadecimal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    /// Of the run's final `config.json`.
    pub(crate) model: String,
    /// Of `tokenizer.json`.
    pub(crate) tokenizer: String,
    /// In the order of the configuration.
    pub(crate) data: Vec<SourceIdentity>,
}

/// One source of the corpus.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SourceIdentity {
    pub(crate) name: String,
    /// The share of all rows.
    pub(crate) share: f64,
    /// Of a text; 0 for a task.
    pub(crate) tokens: u64,
    /// Of the training tokens, or of the task.
    pub(crate) train: String,
    /// Of the validation tokens, or of the task.
    pub(crate) validation: String,
}

/// A difference between a checkpoint and the current run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// A key of the configuration, or a part of the corpus.
    pub key: String,
    /// The value in the checkpoint.
    pub before: String,
    /// The current value.
    pub now: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} was {} and is {}", self.key, self.before, self.now)
    }
}

impl State {
    /// The state after `step`; `updates`, the validation loss and the loss scale are given by the caller.
    pub(crate) fn after(
        step: u64,
        tokens: u64,
        config: &RunConfig,
        batches: &TrainingBatches,
        identity: &Identity,
    ) -> Self {
        let train = &config.train;
        let index = train.stage_at(step.saturating_sub(1));
        let stage = index.filter(|_| step > 0).map(|index| StageState {
            index,
            solver: train.stages[index].solver.to_string(),
        });
        Self {
            format: FORMAT,
            step,
            tokens,
            validation_loss: None,
            data: DataPosition::after(step, config, batches),
            random: RandomState::of(config),
            schedule: ScheduleState {
                kind: train.schedule,
                steps: train.steps,
                next_lr: LearningRate::new(train).at(step + 1),
            },
            stage,
            identity: identity.clone(),
            loss_scale: None,
            updates: BTreeMap::new(),
        }
    }
}

impl DataPosition {
    /// The position that follows from the step.
    pub(crate) fn after(step: u64, config: &RunConfig, batches: &TrainingBatches) -> Self {
        let micro_batches = step * config.train.accumulation as u64;
        let rows = batches.rows_before(micro_batches).into_iter();
        Self {
            micro_batches,
            rows: rows
                .map(|rows| u64::try_from(rows).unwrap_or(u64::MAX))
                .collect(),
        }
    }
}

impl RandomState {
    pub(crate) fn of(config: &RunConfig) -> Self {
        Self {
            generator: "ChaCha8".into(),
            seed: config.train.seed,
        }
    }
}

impl Identity {
    pub(crate) fn of(model_json: &str, corpus: &Corpus, batches: &TrainingBatches) -> Self {
        let hex = |hash: [u8; 32]| blake3::Hash::from(hash).to_hex().to_string();
        let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex().to_string();
        let sources = corpus.sources.iter().zip(batches.shares());
        let source = |(source, share): (&PreparedSource, f64)| SourceIdentity {
            name: source.name.clone(),
            share,
            tokens: source.train().text().map_or(0, TokenFile::len),
            train: hex(source.train().content_hash()),
            validation: hex(source.validation().content_hash()),
        };
        Self {
            model: hash(model_json.as_bytes()),
            tokenizer: hash(corpus.tokenizer.json()),
            data: sources.map(source).collect(),
        }
    }

    /// The differences, described.
    pub(crate) fn differences(&self, now: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut compare = |key: String, before: String, now: String| {
            if before != now {
                found.push(Difference { key, before, now });
            }
        };
        let short = |hash: &str| format!("blake3 {}..", hash.get(..12).unwrap_or(hash));
        for (key, before, now) in [
            ("the model (config.json)", &self.model, &now.model),
            ("the tokenizer", &self.tokenizer, &now.tokenizer),
        ] {
            compare(key.into(), short(before), short(now));
        }
        let names = |identity: &Self| {
            let names: Vec<&str> = identity.data.iter().map(|s| s.name.as_str()).collect();
            format!("[{}]", names.join(", "))
        };
        // The sources' names may change, but not their number.
        if self.data.len() != now.data.len() {
            compare("the data's list of sources".into(), names(self), names(now));
        }
        for (before, now) in self.data.iter().zip(&now.data) {
            let name = &before.name;
            let key = |what: &str| format!("data source {name}, {what}");
            let share = |source: &SourceIdentity| format!("{:.6}", source.share);
            compare(key("its share"), share(before), share(now));
            let text = |tokens, hash| match tokens {
                0 => short(hash),
                _ => format!("{tokens} tokens with {}", short(hash)),
            };
            compare(
                key("the training text"),
                text(before.tokens, &before.train),
                text(now.tokens, &now.train),
            );
            compare(
                key("the validation text"),
                short(&before.validation),
                short(&now.validation),
            );
        }
        found
    }
}
