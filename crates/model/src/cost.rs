//! What a model costs: parameters, evaluations, FLOPs, memory.

use burn::module::Param;
use burn::tensor::Tensor;

use crate::names::{ParameterVisitor, Role, visit_parameters};
use crate::{LanguageModel, ModelConfig};

/// The costs of a model, known without touching its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Cost {
    /// Number of parameters, a tied embedding counted once.
    pub parameters: u64,
    /// Evaluations of each layer's block, n = 1..N.
    pub evaluations: Vec<usize>,
    /// Floating-point operations of one forward pass at full context, averaged over its tokens. A
    /// multiplication and an addition count as two; products only, as is usual: norms and
    /// activations are left out.
    pub forward_flops_per_token: f64,
    /// Bytes of f32 keys and values that token-by-token decoding has to keep for each token: one
    /// pair for every (layer, evaluation).
    pub cache_bytes_per_token: u64,
}

impl Cost {
    /// The costs of a model, initialised or empty.
    pub fn of(model: &LanguageModel) -> Self {
        let mut count = Count::default();
        visit_parameters(model, &mut count);
        let ModelConfig {
            vocab_size,
            d_model,
            n_layers,
            n_heads,
            n_kv_heads,
            seq_len,
            ..
        } = *model.config();
        let solver = &model.model.solver;
        let evaluations: Vec<usize> = (1..=n_layers).map(|n| solver.evaluations(n)).collect();
        let total: usize = evaluations.iter().sum();
        let head = (vocab_size * d_model) as f64;
        let block = (count.layer_projections / n_layers as u64) as f64;
        // Scores and mixing, for the (seq + 1) / 2 tokens that a causal token sees on average.
        let attention = 2.0 * d_model as f64 * (seq_len as f64 + 1.0);
        let kv_width = d_model / n_heads * n_kv_heads;
        Self {
            parameters: count.parameters,
            forward_flops_per_token: total as f64 * (2.0 * block + attention) + 2.0 * head,
            cache_bytes_per_token: (total * 2 * kv_width * size_of::<f32>()) as u64,
            evaluations,
        }
    }

    /// Evaluations of blocks for one token, all layers together.
    pub fn total_evaluations(&self) -> usize {
        self.evaluations.iter().sum()
    }
}

#[derive(Default)]
struct Count {
    parameters: u64,
    layer_projections: u64,
}

impl ParameterVisitor for Count {
    fn visit<const D: usize>(&mut self, name: &str, role: Role, parameter: &Param<Tensor<D>>) {
        let elements = parameter.lazy_shape().num_elements() as u64;
        self.parameters += elements;
        if role == Role::Projection && name.starts_with("model.layers.") {
            self.layer_projections += elements;
        }
    }
}

/// An estimate of the memory that training takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainingMemory {
    /// Weights, gradients and two moments in f32.
    pub parameters: u64,
    /// What the backward pass keeps of a micro-batch, and its logits.
    pub activations: u64,
}

impl TrainingMemory {
    /// The estimate for micro-batches of `batch` sequences of `seq` tokens.
    ///
    /// Parameters are exact. Activations are the tensors that the backward pass needs: for each
    /// evaluation the inputs of both norms, of the projections and of attention, the feed-forward
    /// layer's gate, value and product, and the solver's own states. The sum was within a tenth of
    /// the peaks measured for three solvers at two sizes on flex.
    pub fn of(model: &LanguageModel, batch: usize, seq: usize) -> Self {
        let cost = Cost::of(model);
        let evaluations = cost.total_evaluations();
        Self::estimate(model, &cost, batch.saturating_mul(seq), evaluations, 4)
    }

    /// The estimate where the backward pass computes every layer again: the activations of one
    /// layer, and for each layer its state, its place in a history and a gradient to both.
    pub fn of_one_layer(model: &LanguageModel, batch: usize, seq: usize) -> Self {
        let cost = Cost::of(model);
        let evaluations = cost.evaluations.iter().copied().max().unwrap_or(0);
        let states = 4 + 4 * model.config().n_layers;
        Self::estimate(model, &cost, batch.saturating_mul(seq), evaluations, states)
    }

    /// For so many evaluations and states of `tokens` tokens. The bounds of
    /// [`ModelConfig::validate`] keep the bytes of one token below 2^60; a batch has no bound.
    fn estimate(
        model: &LanguageModel,
        cost: &Cost,
        tokens: usize,
        evaluations: usize,
        states: usize,
    ) -> Self {
        let config = model.config();
        let evaluation = 12 * config.d_model + 3 * config.d_ff;
        let per_token = evaluations * evaluation + states * config.d_model;
        Self {
            parameters: 4 * 4 * cost.parameters,
            activations: (tokens as u64).saturating_mul(4 * per_token as u64),
        }
    }

    /// The sum.
    pub fn total(&self) -> u64 {
        self.parameters.saturating_add(self.activations)
    }
}
