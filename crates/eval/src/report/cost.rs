//! The cost of a model by its sizes and its solver, and relative to the reference.

use iiet_model::Cost;
use serde::Serialize;

/// Costs per token, computed without running the model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenCost {
    /// Number of parameters; a tied embedding counts once.
    pub parameters: u64,
    /// Bytes of the weight files.
    pub weight_bytes: u64,
    /// Evaluations of blocks per token, summed over layers.
    pub evaluations: usize,
    /// Evaluations of each layer's block.
    pub evaluations_by_layer: Vec<usize>,
    /// The mean over layers.
    pub evaluations_per_layer: f64,
    /// FLOPs of a forward pass at the model's full context ([`Cost::forward_flops_per_token`]).
    pub forward_flops: f64,
    /// Bytes of f32 KV cache per token.
    pub cache_bytes: u64,
    /// Relative to the reference.
    pub share_of_parameters: f64,
    /// Relative to the reference.
    pub share_of_bytes: f64,
    /// Relative to the reference.
    pub share_of_evaluations: f64,
    /// Relative to the reference.
    pub share_of_flops: f64,
}

impl TokenCost {
    /// From costs and the bytes of weights.
    pub(super) fn new((cost, bytes): &(Cost, u64), (reference, of): &(Cost, u64)) -> Self {
        let evaluations = cost.total_evaluations();
        Self {
            parameters: cost.parameters,
            weight_bytes: *bytes,
            evaluations,
            evaluations_per_layer: evaluations as f64 / cost.evaluations.len() as f64,
            evaluations_by_layer: cost.evaluations.clone(),
            forward_flops: cost.forward_flops_per_token,
            cache_bytes: cost.cache_bytes_per_token,
            share_of_parameters: cost.parameters as f64 / reference.parameters as f64,
            share_of_bytes: *bytes as f64 / *of as f64,
            share_of_evaluations: evaluations as f64 / reference.total_evaluations() as f64,
            share_of_flops: cost.forward_flops_per_token / reference.forward_flops_per_token,
        }
    }
}
