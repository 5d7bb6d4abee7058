//! What a model costs by its sizes and its solver, and what share that is of the reference.

use iiet_model::Cost;
use serde::Serialize;

/// Costs of one token, known without running the model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenCost {
    /// A tied embedding counted once.
    pub parameters: u64,
    /// Evaluations of blocks for one token, all layers together.
    pub evaluations: usize,
    /// Evaluations of each layer's block.
    pub evaluations_by_layer: Vec<usize>,
    /// Their mean.
    pub evaluations_per_layer: f64,
    /// Of a forward pass at the model's full context ([`Cost::forward_flops_per_token`]).
    pub forward_flops: f64,
    /// Bytes of keys and values, in f32, that decoding keeps for each token.
    pub cache_bytes: u64,
    /// The same of the reference is 1.
    pub share_of_parameters: f64,
    /// The same of the reference is 1.
    pub share_of_evaluations: f64,
    /// The same of the reference is 1.
    pub share_of_flops: f64,
}

impl TokenCost {
    pub(super) fn new(cost: &Cost, reference: &Cost) -> Self {
        let evaluations = cost.total_evaluations();
        Self {
            parameters: cost.parameters,
            evaluations,
            evaluations_per_layer: evaluations as f64 / cost.evaluations.len() as f64,
            evaluations_by_layer: cost.evaluations.clone(),
            forward_flops: cost.forward_flops_per_token,
            cache_bytes: cost.cache_bytes_per_token,
            share_of_parameters: cost.parameters as f64 / reference.parameters as f64,
            share_of_evaluations: evaluations as f64 / reference.total_evaluations() as f64,
            share_of_flops: cost.forward_flops_per_token / reference.forward_flops_per_token,
        }
    }
}
