//! The costs of a model: parameters, evaluations, FLOPs, memory.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use iiet_blocks::{Block, BlockConfig, BlockCost};
use iiet_ode::{Layer, NetworkSolver, Parameters, Role};

use crate::LanguageModel;
use crate::names::{ParameterVisitor, visit_parameters};

/// The costs of a model, computed without its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Cost {
    /// Number of parameters; a tied embedding counts once.
    pub parameters: u64,
    /// Evaluations of each layer's block, n = 1..N.
    pub evaluations: Vec<usize>,
    /// Floating-point operations of a forward pass per token, averaged over a full context. A multiplication
    /// and an addition count as two. As usual, only matrix products count; norms and activations do not.
    pub forward_flops_per_token: f64,
    /// Bytes of f32 KV cache per token: one pair of key and value for each (layer, evaluation).
    pub cache_bytes_per_token: u64,
}

impl Cost {
    /// The costs of a model, initialised or empty.
    pub fn of<B: Block, S: NetworkSolver>(model: &LanguageModel<B, S>) -> Self {
        let sizes = model.sizes();
        let BlockCost {
            flops_per_token,
            cache_bytes_per_token,
            ..
        } = sizes.block.cost(sizes.d_model, sizes.seq_len);
        let solver = &model.model.solver;
        let evaluations: Vec<usize> = Layer::all(sizes.n_layers)
            .map(|layer| solver.evaluations(layer))
            .collect();
        let total = sum(&evaluations);
        let head = (sizes.vocab_size * sizes.d_model) as f64;
        Self {
            parameters: count_parameters(model),
            forward_flops_per_token: total as f64 * flops_per_token + 2.0 * head,
            cache_bytes_per_token: (total as u64).saturating_mul(cache_bytes_per_token),
            evaluations,
        }
    }

    /// Evaluations of blocks per token, summed over layers.
    pub fn total_evaluations(&self) -> usize {
        sum(&self.evaluations)
    }
}

fn sum(evaluations: &[usize]) -> usize {
    evaluations.iter().fold(0, |sum, n| sum.saturating_add(*n))
}

/// Evaluations of each layer's block that a backward pass keeps.
fn recorded<B: Block, S: NetworkSolver>(model: &LanguageModel<B, S>) -> Vec<usize> {
    let solver = &model.model.solver;
    Layer::all(model.sizes().n_layers)
        .map(|layer| solver.recorded_evaluations(layer))
        .collect()
}

/// The number of a model's parameters.
pub(crate) fn count_parameters<M: Module + Parameters>(model: &M) -> u64 {
    let mut count = Count::default();
    visit_parameters(model, &mut count);
    count.parameters
}

#[derive(Default)]
struct Count {
    parameters: u64,
}

impl ParameterVisitor for Count {
    fn visit<const D: usize>(&mut self, _: &str, _: Role, parameter: &Param<Tensor<D>>) {
        self.parameters += parameter.lazy_shape().num_elements() as u64;
    }
}

/// An estimate of the memory for training, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainingMemory {
    /// Weights, gradients and two moments in f32.
    pub parameters: u64,
    /// Activations that are kept for the backward pass of a micro-batch, and its logits.
    pub activations: u64,
}

impl TrainingMemory {
    /// The estimate for micro-batches of `batch` sequences of `seq` tokens.
    ///
    /// Parameters are exact. Activations are the tensors that the backward pass needs: for each evaluation
    /// those that the block keeps ([`BlockCost`]), and the solver's own states. For LLaMA the sum was within
    /// a tenth of the peaks measured for three solvers at two sizes on flex.
    pub fn of<B: Block, S: NetworkSolver>(
        model: &LanguageModel<B, S>,
        batch: usize,
        seq: usize,
    ) -> Self {
        let cost = Cost::of(model);
        let evaluations = sum(&recorded(model));
        Self::estimate(model, &cost, batch.saturating_mul(seq), evaluations, 4)
    }

    /// The estimate if the backward pass recomputes every layer: the activations of one layer, and for each
    /// layer its state, its history entry and a gradient to both.
    pub fn of_one_layer<B: Block, S: NetworkSolver>(
        model: &LanguageModel<B, S>,
        batch: usize,
        seq: usize,
    ) -> Self {
        let cost = Cost::of(model);
        let evaluations = recorded(model).into_iter().max().unwrap_or(0);
        let states = 4 + 4 * model.sizes().n_layers;
        Self::estimate(model, &cost, batch.saturating_mul(seq), evaluations, states)
    }

    /// For the given number of evaluations and states of `tokens` tokens.
    fn estimate<B: Block, S: NetworkSolver>(
        model: &LanguageModel<B, S>,
        cost: &Cost,
        tokens: usize,
        evaluations: usize,
        states: usize,
    ) -> Self {
        let sizes = model.sizes();
        let block = sizes.block.cost(sizes.d_model, sizes.seq_len);
        let of_evaluations = block
            .activations_per_token
            .saturating_mul(evaluations as u64);
        let of_states = (states as u64).saturating_mul(sizes.d_model as u64);
        let per_token = of_evaluations.saturating_add(of_states);
        Self {
            parameters: cost.parameters.saturating_mul(4 * 4),
            activations: per_token.saturating_mul(tokens as u64).saturating_mul(4),
        }
    }

    /// The sum.
    pub fn total(&self) -> u64 {
        self.parameters.saturating_add(self.activations)
    }
}
