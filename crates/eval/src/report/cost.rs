//! The cost of a model by its sizes and its solvers, and relative to the reference.

use serde::Serialize;

use super::candidate::Candidate;
use super::sides::Sides;

/// Costs, computed without running the model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelCost {
    /// Number of parameters; a tied embedding counts once.
    pub parameters: u64,
    /// Bytes of the weight files.
    pub weight_bytes: u64,
    /// Relative to the reference.
    pub share_of_parameters: f64,
    /// Relative to the reference.
    pub share_of_bytes: f64,
    /// For each token; of an encoder-decoder for each token of a source and of a target.
    #[serde(flatten)]
    pub tokens: Sides<TokenCost>,
}

/// Costs per token.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenCost {
    /// Evaluations of blocks per token, summed over layers.
    pub evaluations: usize,
    /// Evaluations of each layer's block.
    pub evaluations_by_layer: Vec<usize>,
    /// The mean over layers.
    pub evaluations_per_layer: f64,
    /// FLOPs of a forward pass at the model's full context ([`iiet_model::Cost::forward_flops_per_token`],
    /// [`iiet_model::EncoderDecoderCost`]).
    pub forward_flops: f64,
    /// Bytes of f32 keys and values per token.
    pub cache_bytes: u64,
    /// Relative to the reference.
    pub share_of_evaluations: f64,
    /// Relative to the reference.
    pub share_of_flops: f64,
}

/// What a token costs, by itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PlainCost {
    pub evaluations: Vec<usize>,
    pub forward_flops: f64,
    pub cache_bytes: u64,
}

impl PlainCost {
    fn total(&self) -> usize {
        self.evaluations.iter().sum()
    }
}

impl ModelCost {
    pub(super) fn new(own: &Candidate, reference: &Candidate) -> Self {
        let share = |of: fn(&Candidate) -> u64| of(own) as f64 / of(reference) as f64;
        Self {
            parameters: own.outline.parameters,
            weight_bytes: own.weight_bytes,
            share_of_parameters: share(|model| model.outline.parameters),
            share_of_bytes: share(|model| model.weight_bytes),
            tokens: own
                .outline
                .costs
                .zip(&reference.outline.costs)
                .map(|(own, reference)| TokenCost::new(own, reference)),
        }
    }

    /// FLOPs of a forward pass; of an encoder-decoder of a token on each side.
    pub fn forward_flops(&self) -> f64 {
        let flops = |cost: &TokenCost| cost.forward_flops;
        self.tokens.iter().map(flops).sum()
    }
}

impl TokenCost {
    fn new(own: &PlainCost, reference: &PlainCost) -> Self {
        let evaluations = own.total();
        Self {
            evaluations,
            evaluations_per_layer: evaluations as f64 / own.evaluations.len() as f64,
            evaluations_by_layer: own.evaluations.clone(),
            forward_flops: own.forward_flops,
            cache_bytes: own.cache_bytes,
            share_of_evaluations: evaluations as f64 / reference.total() as f64,
            share_of_flops: own.forward_flops / reference.forward_flops,
        }
    }
}
