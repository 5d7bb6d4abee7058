//! The configuration file: `[model]`, `[data]`, `[train]`.

use std::path::Path;

use iiet_data::DataConfig;
use iiet_model::ModelConfig;
use iiet_ode::{IterationSchedule, SolverConfig, SolverName, SolverOptions};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::TrainError;
use crate::schedule::ScheduleKind;

/// A run, as the TOML file describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The model.
    pub model: ModelSection,
    /// The corpus.
    #[serde(default)]
    pub data: DataConfig,
    /// The optimisation.
    pub train: TrainSection,
}

/// `[model]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// Width of the hidden states.
    pub d_model: usize,
    /// Width inside the feed-forward layers.
    pub d_ff: usize,
    /// Number of layers.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads; as many as query heads unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_kv_heads: Option<usize>,
    /// Tokens in a training sequence, and the context of the model.
    pub seq_len: usize,
    /// Whether the output projection is the embedding.
    #[serde(default = "yes")]
    pub tie_embeddings: bool,
    /// The layer solver.
    pub solver: SolverName,
    /// Corrections of the implicit solvers; the others do not read it.
    #[serde(default = "default_iterations")]
    pub iterations: IterationSchedule,
    /// Order of `runge_kutta` and of the predictor; the others do not read it.
    #[serde(default = "default_order")]
    pub predictor_order: usize,
    /// What RMSNorm adds to the mean square.
    #[serde(default = "default_eps")]
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    #[serde(default = "default_theta")]
    pub rope_theta: f64,
    /// Standard deviation of fresh weight matrices.
    #[serde(default = "default_range")]
    pub initializer_range: f64,
}

/// `[train]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSection {
    /// Optimiser steps.
    pub steps: u64,
    /// Sequences in a micro-batch.
    pub batch: usize,
    /// Micro-batches in a step.
    #[serde(default = "one")]
    pub accumulation: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Steps of linear warm-up.
    #[serde(default)]
    pub warmup: u64,
    /// What follows the warm-up.
    #[serde(default)]
    pub schedule: ScheduleKind,
    /// The share of the steps over which `wsd` decays.
    #[serde(default = "default_decay")]
    pub decay: f64,
    /// The learning rate at the end, as a share of the peak.
    #[serde(default = "default_final_lr")]
    pub final_lr: f64,
    /// Decoupled weight decay of matrices; norms and solver coefficients have none.
    #[serde(default = "default_weight_decay")]
    pub weight_decay: f64,
    /// Decay of the first moment.
    #[serde(default = "default_beta_1")]
    pub beta_1: f64,
    /// Decay of the second moment.
    #[serde(default = "default_beta_2")]
    pub beta_2: f64,
    /// The largest global norm of a gradient; 0 turns clipping off.
    #[serde(default = "default_clip")]
    pub clip: f64,
    /// Seed of weights, batches and samples.
    #[serde(default)]
    pub seed: u64,
    /// Steps between lines of `metrics.jsonl`.
    #[serde(default = "default_log_every")]
    pub log_every: u64,
    /// Steps between validations.
    #[serde(default = "default_eval_every")]
    pub eval_every: u64,
    /// Tokens of the validation text that are looked at.
    #[serde(default = "default_eval_tokens")]
    pub eval_tokens: u64,
    /// Steps between samples of text; 0 for none.
    #[serde(default)]
    pub sample_every: u64,
    /// What a sample continues.
    #[serde(default)]
    pub sample_prompt: String,
    /// Steps between checkpoints; 0 for one at the end alone.
    #[serde(default)]
    pub checkpoint_every: u64,
    /// Checkpoints kept.
    #[serde(default = "default_keep")]
    pub keep: usize,
    /// Solvers to train with in turn, ending with the model's; none means the model's throughout.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Stage>,
}

/// One of the stages of two-stage training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// The solver of this stage.
    pub solver: SolverName,
    /// Its corrections; the model's unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iterations: Option<IterationSchedule>,
    /// Its order; the model's unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predictor_order: Option<usize>,
    /// The share of the steps.
    pub share: f64,
}

fn yes() -> bool {
    true
}
fn one() -> usize {
    1
}
fn default_iterations() -> IterationSchedule {
    SolverOptions::default().iterations
}
fn default_order() -> usize {
    SolverOptions::default().predictor_order
}
fn default_eps() -> f64 {
    1e-6
}
fn default_theta() -> f64 {
    1e4
}
fn default_range() -> f64 {
    0.02
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

impl RunConfig {
    /// Reads a file and applies `key=value` assignments to it in order.
    ///
    /// Keys are dotted, `train.lr=1e-3`; a value that is not TOML is taken as a string.
    ///
    /// # Errors
    ///
    /// [`TrainError::ConfigFile`] with the line, [`TrainError::Set`] with the assignment at fault,
    /// and the errors of [`validate`](Self::validate).
    pub fn load(path: &Path, sets: &[String]) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path).map_err(TrainError::io(path))?;
        let refuse = |error: toml::de::Error| TrainError::ConfigFile {
            path: path.to_owned(),
            reason: error.to_string().trim_end().to_owned(),
        };
        let mut config: Self = toml::from_str(&text).map_err(refuse)?;
        let mut table: Table = toml::from_str(&text).map_err(refuse)?;
        for assignment in sets {
            config = set(&mut table, assignment).map_err(|reason| TrainError::Set {
                assignment: assignment.clone(),
                reason,
            })?;
        }
        config.validate()?;
        Ok(config)
    }

    /// The text of a file that reads back as this configuration.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("invariant: the sections serialise as TOML")
    }

    /// Checks everything that can be checked without the data.
    ///
    /// # Errors
    ///
    /// [`TrainError::Value`], [`TrainError::Model`] or [`TrainError::Data`] with the key, what was
    /// found and what is allowed.
    pub fn validate(&self) -> Result<(), TrainError> {
        self.data.check()?;
        self.model.config(self.data.vocab_size, None).validate()?;
        self.train.validate()?;
        for stage in &self.train.stages {
            self.model
                .for_stage(stage)
                .config(self.data.vocab_size, None)
                .validate()?;
        }
        if let Some(last) = self.train.stages.last()
            && self.model.for_stage(last) != self.model
        {
            return Err(TrainError::Value {
                key: "train.stages",
                found: format!("{:?} in the last stage", last.solver),
                allowed: "the last stage must use the solver of [model]".into(),
            });
        }
        Ok(())
    }
}

/// Applies one assignment and reads the whole again, so that the assignment at fault is known.
fn set(table: &mut Table, assignment: &str) -> Result<RunConfig, String> {
    let (key, value) = assignment
        .split_once('=')
        .ok_or("expected key=value, such as train.lr=1e-3")?;
    let value = toml::from_str::<Table>(&format!("value = {value}"))
        .ok()
        .and_then(|mut parsed| parsed.remove("value"))
        .unwrap_or_else(|| Value::String(value.to_owned()));
    let mut place = &mut *table;
    let words: Vec<&str> = key.trim().split('.').collect();
    let (leaf, sections) = words
        .split_last()
        .expect("invariant: split yields at least one word");
    for section in sections {
        place = place
            .entry(*section)
            .or_insert_with(|| Value::Table(Table::new()))
            .as_table_mut()
            .ok_or_else(|| format!("{section} is not a section; allowed: model, data, train"))?;
    }
    place.insert((*leaf).to_owned(), value);
    let whole = Value::Table(table.clone());
    whole
        .try_into()
        .map_err(|error: toml::de::Error| error.message().to_owned())
}

impl ModelSection {
    /// The model's configuration, once the tokenizer is known.
    pub fn config(&self, vocab_size: usize, document_end: Option<u32>) -> ModelConfig {
        ModelConfig {
            vocab_size,
            d_model: self.d_model,
            d_ff: self.d_ff,
            n_layers: self.n_layers,
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads.unwrap_or(self.n_heads),
            seq_len: self.seq_len,
            rms_norm_eps: self.rms_norm_eps,
            rope_theta: self.rope_theta,
            initializer_range: self.initializer_range,
            tie_embeddings: self.tie_embeddings,
            solver: SolverConfig {
                name: self.solver,
                options: SolverOptions {
                    iterations: self.iterations.clone(),
                    predictor_order: self.predictor_order,
                },
            },
            bos_token_id: None,
            eos_token_id: document_end,
        }
    }

    /// The same model under the solver of a stage.
    pub fn for_stage(&self, stage: &Stage) -> Self {
        Self {
            solver: stage.solver,
            iterations: stage
                .iterations
                .clone()
                .unwrap_or_else(|| self.iterations.clone()),
            predictor_order: stage.predictor_order.unwrap_or(self.predictor_order),
            ..self.clone()
        }
    }
}

impl TrainSection {
    fn validate(&self) -> Result<(), TrainError> {
        let refuse = |key, found: String, allowed: &str| {
            let allowed = allowed.to_owned();
            Err(TrainError::Value {
                key,
                found,
                allowed,
            })
        };
        for (key, value) in [
            ("train.steps", self.steps),
            ("train.batch", self.batch as u64),
            ("train.accumulation", self.accumulation as u64),
            ("train.log_every", self.log_every),
            ("train.eval_every", self.eval_every),
            ("train.eval_tokens", self.eval_tokens),
            ("train.keep", self.keep as u64),
        ] {
            if value == 0 || value > 1 << 40 {
                return refuse(key, value.to_string(), "allowed: 1 to 2^40");
            }
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
        for (key, value) in [("train.beta_1", self.beta_1), ("train.beta_2", self.beta_2)] {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const SMALL: &str = "[model]\nd_model = 16\nd_ff = 32\nn_layers = 2\nn_heads = 2\nseq_len = 8\nsolver = \"iterative_implicit_euler\"\n\n[train]\nsteps = 100\nbatch = 2\nlr = 1e-3\n";

    fn load(text: &str, sets: &[&str]) -> Result<RunConfig, TrainError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
        RunConfig::load(file.path(), &sets)
    }

    #[test]
    fn a_file_reads_back_as_itself() {
        let config = load(SMALL, &["train.stages=[{solver='explicit_euler', share=0.75}, {solver='iterative_implicit_euler', share=0.25}]"]).unwrap();
        assert_eq!(load(&config.to_toml(), &[]).unwrap(), config);
        assert_eq!(config.train.stage_starts(), [0, 75]);
    }

    #[test]
    fn assignments_override_the_file() {
        let config = load(
            SMALL,
            &[
                "train.lr=0.5",
                "model.solver=runge_kutta",
                "model.iterations=[1, 2]",
                "data.source=corpus.txt",
            ],
        )
        .unwrap();
        assert_eq!(config.train.lr, 0.5);
        assert_eq!(config.model.solver, SolverName::RungeKutta);
        assert_eq!(
            config.model.iterations,
            IterationSchedule::PerLayer(vec![1, 2])
        );
        assert_eq!(
            config.data.source,
            iiet_data::SourceSpec::One("corpus.txt".into())
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (text, sets, expected) in [
            (
                SMALL.replace("d_ff", "d_fff"),
                vec![],
                "unknown field `d_fff`",
            ),
            (SMALL.replace("d_ff", "d_fff"), vec![], "line 3"),
            (SMALL.replace("= 16", "= -1"), vec![], "line 2"),
            (
                SMALL.replace("n_heads = 2", "n_heads = 0"),
                vec![],
                "n_heads (num_attention_heads) is 0",
            ),
            (
                SMALL.replace("n_heads = 2", "n_heads = 3"),
                vec![],
                "it must be an even multiple of n_heads",
            ),
            (
                SMALL.replace("steps = 100", ""),
                vec![],
                "missing field `steps`",
            ),
            (
                SMALL.into(),
                vec!["train.lrr=1"],
                "--set train.lrr=1: unknown field `lrr`",
            ),
            (
                SMALL.into(),
                vec!["train.lr=1", "model.solver=heun"],
                "--set model.solver=heun: unknown variant `heun`, expected one of",
            ),
            (
                SMALL.into(),
                vec!["train.lr"],
                "--set train.lr: expected key=value",
            ),
            (
                SMALL.into(),
                vec!["train.lr.x=1"],
                "--set train.lr.x=1: lr is not a section",
            ),
            (
                SMALL.into(),
                vec!["train.lr=nan"],
                "train.lr is NaN; allowed: finite and above 0",
            ),
            (
                SMALL.into(),
                vec!["train.steps=0"],
                "train.steps is 0; allowed: 1 to 2^40",
            ),
            (
                SMALL.into(),
                vec!["train.warmup=101"],
                "train.warmup is 101; allowed: at most train.steps, 100",
            ),
            (
                SMALL.into(),
                vec!["model.iterations=[1]"],
                "iterations lists 1 layers, the model has 2",
            ),
            (
                SMALL.into(),
                vec!["train.stages=[{solver='explicit_euler', share=0.5}]"],
                "shares must be above 0 and sum to 1",
            ),
            (
                SMALL.into(),
                vec!["train.stages=[{solver='explicit_euler', share=1.0}]"],
                "the last stage must use the solver of [model]",
            ),
        ] {
            let error = load(&text, &sets).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
