//! `[model]`: the sizes and the solver.

use iiet_model::ModelConfig;
use iiet_ode::{IterationSchedule, SolverConfig, SolverName, SolverOptions};
use serde::{Deserialize, Serialize};

use super::Stage;

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

fn yes() -> bool {
    true
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

impl ModelSection {
    /// The section that describes a model, all but its vocabulary, its special tokens and a scaling
    /// of the rotary frequencies.
    pub fn of(config: &ModelConfig) -> Self {
        let SolverConfig { name, options } = config.solver.clone();
        Self {
            d_model: config.d_model,
            d_ff: config.d_ff,
            n_layers: config.n_layers,
            n_heads: config.n_heads,
            n_kv_heads: Some(config.n_kv_heads),
            seq_len: config.seq_len,
            tie_embeddings: config.tie_embeddings,
            solver: name,
            iterations: options.iterations,
            predictor_order: options.predictor_order,
            rms_norm_eps: config.rms_norm_eps,
            rope_theta: config.rope_theta,
            initializer_range: config.initializer_range,
        }
    }

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
            rope_scaling: None,
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
            eos_token_ids: document_end.into_iter().collect(),
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
