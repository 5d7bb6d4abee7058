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
