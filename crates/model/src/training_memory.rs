//! An estimate of the memory that training takes.
//!
//! ```text
//! peak = weights + rounded copy + moments + gradients + activations - what is never there at once
//! ```
//!
//! The backward pass frees the activations of a layer while it makes the gradients to its weights, so the gradients
//! of a micro-batch and its activations are never all there at once: the smaller of the two does not count. What a
//! block keeps is counted tensor by tensor ([`BlockCost`](iiet_blocks::BlockCost)); the solver's own states, and what
//! a recomputed layer needs, are rounded up from peaks of live memory measured with six solvers on flex.

use iiet_blocks::{Block, BlockConfig, CrossedConfig};
use iiet_kernels::tokens_per_chunk;
use iiet_ode::{Layer, NetworkSolver};

use crate::cost::count_parameters;
use crate::stack::Stack;
use crate::{EncoderDecoder, LanguageModel, Precision};

/// How a micro-batch is trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MicroBatch {
    /// Tokens of the texts or targets, padding included.
    pub tokens: usize,
    /// The same of their sources, of an encoder-decoder.
    pub source_tokens: usize,
    /// The precision of the passes.
    pub precision: Precision,
    /// Whether the backward pass recomputes each layer.
    pub by_layers: bool,
    /// Whether its gradients are added to those of earlier micro-batches.
    pub accumulated: bool,
}

impl MicroBatch {
    /// The first micro-batch of a step in f32, of a language model, without recomputation.
    pub fn of(tokens: usize) -> Self {
        Self {
            tokens,
            source_tokens: 0,
            precision: Precision::F32,
            by_layers: false,
            accumulated: false,
        }
    }
}

/// The memory of training by kind, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainingMemory {
    /// Weights in f32.
    pub weights: u64,
    /// Their copy in half precision; 0 in f32.
    pub rounded: u64,
    /// Gradients in f32: those of a micro-batch, and the sum to which they are added.
    pub gradients: u64,
    /// Two moments in f32.
    pub moments: u64,
    /// What is kept for the backward pass of a micro-batch, and a chunk of its logits.
    pub activations: u64,
    /// The part of gradients and activations that is never there at once.
    pub exclusive: u64,
}

/// What a stack of layers keeps for its backward pass.
struct Kept {
    tokens: usize,
    /// Values per token of an evaluation, the solver's among them.
    of_evaluation: u64,
    /// Evaluations that are recorded, of each layer.
    evaluations: Vec<usize>,
    /// Values per token that stay from a layer to its backward pass if it is recomputed.
    of_layer: u64,
    /// Values per token that stay beside the layers', unless these are recomputed.
    beside: u64,
}

impl Kept {
    fn new<B: Block, S: NetworkSolver>(
        (layers, solver): (&[B], &S),
        tokens: usize,
        (of_block, d_model): (u64, usize),
    ) -> Self {
        // The gradient to a learned coefficient needs the state that it multiplies: the slope, the combination, and
        // the layer's input. Layer by layer the state, its history entry and the gradients to both stay.
        let learned = count_parameters(solver) > 0;
        let [of_evaluation, of_layer] = if learned { [3, 4] } else { [0, 2] };
        let recorded = Layer::all(layers.len()).map(|layer| solver.recorded_evaluations(layer));
        Self {
            tokens,
            of_evaluation: of_block.saturating_add(of_evaluation * d_model as u64),
            evaluations: recorded.collect(),
            of_layer: of_layer * d_model as u64,
            beside: 0,
        }
    }

    /// Of all layers.
    fn values(&self) -> u64 {
        let evaluations = self.evaluations.iter();
        let evaluations = evaluations.fold(0u64, |sum, n| sum.saturating_add(*n as u64));
        let per_token = self.of_evaluation.saturating_mul(evaluations);
        self.times(per_token.saturating_add(self.beside))
    }

    /// Of the largest layer, with the gradients to half an evaluation's.
    fn values_of_one(&self) -> u64 {
        let most = self.evaluations.iter().max().map_or(0, |n| *n as u64);
        let halves = most.saturating_mul(2).saturating_add(1);
        self.times(self.of_evaluation.saturating_mul(halves) / 2)
    }

    /// Between the layers.
    fn trajectory(&self) -> u64 {
        self.times(self.of_layer.saturating_mul(self.evaluations.len() as u64))
    }

    fn times(&self, per_token: u64) -> u64 {
        per_token.saturating_mul(self.tokens as u64)
    }
}

impl TrainingMemory {
    /// That of a language model; parameters are exact.
    pub fn of<B: Block, S: NetworkSolver>(model: &LanguageModel<B, S>, batch: &MicroBatch) -> Self {
        let sizes = model.sizes();
        let block = sizes.block.cost(sizes.d_model, sizes.seq_len);
        let stack = (&*model.model.layers, &model.model.solver);
        let of_block = (block.activations_per_token, sizes.d_model);
        let kept = [Kept::new(stack, batch.tokens, of_block)];
        Self::with(count_parameters(model), &kept, sizes.vocab_size, batch)
    }

    /// That of an encoder-decoder.
    pub fn of_sequences(model: &EncoderDecoder, batch: &MicroBatch) -> Self {
        let sizes = model.sizes();
        let (d_model, seq) = (sizes.d_model, sizes.seq_len);
        let crossed = CrossedConfig(sizes.block.clone());
        let encoder = sizes.block.cost(d_model, seq).activations_per_token;
        let decoder = crossed.cost(d_model, seq).activations_per_token;
        let mut kept = [
            of_stack(&model.encoder, batch.source_tokens, (encoder, d_model)),
            of_stack(&model.decoder, batch.tokens, (decoder, d_model)),
        ];
        // The keys and values of cross-attention, of each of the decoder's layers.
        let memory = crossed.memory_cost(d_model).activations_per_token;
        kept[0].beside = memory.saturating_mul(model.decoder.layers.len() as u64);
        Self::with(count_parameters(model), &kept, sizes.vocab_size, batch)
    }

    fn with(parameters: u64, kept: &[Kept], vocab: usize, batch: &MicroBatch) -> Self {
        let f32 = size_of::<f32>() as u64;
        let value = batch.precision.bytes() as u64;
        let half = batch.precision != Precision::F32;
        let sum = |of: fn(&Kept) -> u64| {
            let values = kept.iter().map(of).fold(0, u64::saturating_add);
            values.saturating_mul(value)
        };
        let chunk = tokens_per_chunk(batch.tokens, vocab).min(batch.tokens) as u64;
        // In half precision once more as they come from the product.
        let logit = f32 + if half { value } else { 0 };
        let logits = chunk.saturating_mul(vocab as u64).saturating_mul(logit);
        let once = parameters.saturating_mul(f32);
        let (activations, gradients, freed) = match batch.by_layers {
            false => {
                let all = sum(Kept::values).saturating_add(logits);
                let sets = if batch.accumulated { 2 } else { 1 };
                (all, once.saturating_mul(sets), all)
            }
            // The logits are gone before a layer is recomputed, and its gradients are added to the sum at once.
            true => {
                let between = sum(Kept::trajectory);
                let largest = kept.iter().map(Kept::values_of_one).max().unwrap_or(0);
                let largest = largest.saturating_mul(value).max(logits);
                let freed = if batch.accumulated { 0 } else { between };
                (largest.saturating_add(between), once, freed)
            }
        };
        Self {
            weights: once,
            rounded: if half {
                parameters.saturating_mul(value)
            } else {
                0
            },
            gradients,
            moments: once.saturating_mul(2),
            activations,
            exclusive: freed.min(once),
        }
    }

    /// Bytes that do not depend on the size of a micro-batch.
    pub fn parameters(&self) -> u64 {
        [self.weights, self.rounded, self.gradients, self.moments]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    /// The peak.
    pub fn total(&self) -> u64 {
        let sum = self.parameters().saturating_add(self.activations);
        sum.saturating_sub(self.exclusive)
    }
}

fn of_stack<B: Block, S: NetworkSolver>(
    stack: &Stack<B, S>,
    tokens: usize,
    of_block: (u64, usize),
) -> Kept {
    Kept::new((&*stack.layers, &stack.solver), tokens, of_block)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use iiet_ode::{Options, SolverConfig};

    use super::*;
    use crate::ModelConfig;
    use iiet_blocks::LlamaConfig;

    fn model(solver: &str) -> LanguageModel {
        let config = ModelConfig {
            vocab_size: 32,
            d_model: 8,
            n_layers: 2,
            seq_len: 4,
            block: LlamaConfig {
                d_ff: 16,
                n_heads: 2,
                n_kv_heads: 1,
                ..LlamaConfig::default()
            },
            solver: SolverConfig::named(solver).unwrap(),
            ..ModelConfig::default()
        };
        LanguageModel::empty(&config, &Device::default()).unwrap()
    }

    #[test]
    fn parts_are_those_worked_out_by_hand() {
        let model = model("explicit_euler");
        // Embedding and head 2 x 32 x 8 unless tied; two layers of q and o 2 x 64, k and v 2 x 32, three of 8 x 16,
        // and two norms; a norm.
        let parameters = count_parameters(&model);
        let batch = MicroBatch::of(12);
        let memory = TrainingMemory::of(&model, &batch);
        assert_eq!(memory.weights, 4 * parameters);
        assert_eq!((memory.rounded, memory.moments), (0, 8 * parameters));
        // A token and evaluation: 4 x 8 of norms, 2 x 8 of queries, 2 x 4 of keys and values, 3 x 16, 2 denominators.
        let of_evaluation = 32 + 16 + 8 + 48 + 2;
        assert_eq!(memory.activations, 12 * 4 * (2 * of_evaluation + 32));
        assert_eq!(memory.exclusive, memory.gradients.min(memory.activations));

        let half = MicroBatch {
            precision: Precision::Bf16,
            accumulated: true,
            ..batch
        };
        let memory = TrainingMemory::of(&model, &half);
        assert_eq!(memory.activations, 12 * (2 * 2 * of_evaluation + 6 * 32));
        assert_eq!(
            (memory.rounded, memory.gradients),
            (2 * parameters, 8 * parameters)
        );

        let by_layers = MicroBatch {
            by_layers: true,
            ..batch
        };
        let memory = TrainingMemory::of(&model, &by_layers);
        // One and a half evaluations, and two states for each of two layers.
        let largest = of_evaluation * 3 / 2;
        assert_eq!(memory.activations, 12 * 4 * (largest + 2 * 2 * 8));
        assert_eq!(memory.exclusive, memory.gradients.min(12 * 4 * 2 * 2 * 8));
    }

    #[test]
    fn learned_coefficients_keep_states() {
        let batch = MicroBatch::of(1);
        let of = |solver| TrainingMemory::of(&model(solver), &batch).activations;
        // Each evaluation with three states.
        let of_evaluation = 32 + 16 + 8 + 48 + 2;
        let iterated = model("iterative_implicit_euler");
        let evaluations = crate::Cost::of(&iterated).total_evaluations() as u64;
        let expected = 4 * (evaluations * (of_evaluation + 3 * 8) + 32);
        assert_eq!(of("iterative_implicit_euler"), expected);
        assert!(of("explicit_euler") < expected);
    }
}
