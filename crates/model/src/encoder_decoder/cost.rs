//! The costs of an encoder-decoder: parameters, evaluations, FLOPs, memory.

use burn::tensor::Device;
use iiet_blocks::{BlockConfig, CrossedConfig, LlamaConfig};

use super::{EncoderDecoder, EncoderDecoderConfig};
use crate::cost::count_parameters;
use crate::memory::WEIGHTS;
use crate::{MemoryEstimate, ModelError, Precision};

/// The costs of an encoder-decoder, computed without its weights. A multiplication and an addition count as
/// two operations; only matrix products count. Source and target fill the context.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderDecoderCost {
    /// Number of parameters; the embedding counts once.
    pub parameters: u64,
    /// Evaluations of each encoder layer's block.
    pub encoder_evaluations: Vec<usize>,
    /// Evaluations of each decoder layer's block.
    pub decoder_evaluations: Vec<usize>,
    /// Operations of a forward pass per token of the source: the encoder, and the keys and values of
    /// cross-attention, once a decoder layer.
    pub flops_per_source_token: f64,
    /// Operations of a forward pass per token of the target, with its logits.
    pub flops_per_target_token: f64,
    /// Bytes of f32 keys and values of cross-attention per token of the source, one pair a decoder layer.
    pub cache_bytes_per_source_token: u64,
    /// Bytes of f32 KV cache per token of the target, one pair for each (layer, evaluation).
    pub cache_bytes_per_target_token: u64,
}

impl EncoderDecoderCost {
    /// The costs of a model, initialised or empty.
    pub fn of(model: &EncoderDecoder) -> Self {
        let sizes = model.sizes();
        let (d_model, seq) = (sizes.d_model, sizes.seq_len);
        let crossed = CrossedConfig(sizes.block.clone());
        let sum = |evaluations: &[usize]| evaluations.iter().sum::<usize>();
        let encoder = model.encoder.evaluations();
        let decoder = model.decoder.evaluations();
        let of_encoder = source_flops(&sizes.block, d_model, seq);
        let of_decoder = crossed.cost(d_model, seq);
        let of_memory = crossed.memory_cost(d_model);
        let layers = sizes.decoder.n_layers as u64;
        let head = 2.0 * (sizes.vocab_size * d_model) as f64;
        Self {
            parameters: count_parameters(model),
            flops_per_source_token: sum(&encoder) as f64 * of_encoder
                + layers as f64 * of_memory.flops_per_token,
            flops_per_target_token: sum(&decoder) as f64 * of_decoder.flops_per_token + head,
            cache_bytes_per_source_token: layers * of_memory.cache_bytes_per_token,
            cache_bytes_per_target_token: (sum(&decoder) as u64)
                .saturating_mul(of_decoder.cache_bytes_per_token),
            encoder_evaluations: encoder,
            decoder_evaluations: decoder,
        }
    }
}

/// Operations of one evaluation per token of a source of `seq` tokens, each of which sees all: twice a
/// causal text's `(seq + 1) / 2`, less half a token.
fn source_flops(block: &LlamaConfig, d_model: usize, seq: usize) -> f64 {
    let q_width = (block.head_width(d_model) * block.n_heads) as f64;
    let causal = block.cost(d_model, seq).flops_per_token;
    causal + 2.0 * q_width * (seq as f64 - 1.0)
}

/// What a forward pass of an encoder-decoder keeps in memory at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceInference {
    /// The dtype of the matrices.
    pub precision: Precision,
    /// Columns of all sources together, padding included.
    pub source: usize,
    /// Columns of all targets together, padding included, whose logits are computed together.
    pub target: usize,
}

impl SequenceInference {
    /// An estimate of the required memory; `work` describes the operation.
    ///
    /// # Errors
    ///
    /// The errors of [`EncoderDecoderConfig::validate`].
    pub fn memory(
        &self,
        work: impl Into<String>,
        config: &EncoderDecoderConfig,
        device: &Device,
    ) -> Result<MemoryEstimate, ModelError> {
        // Its weights are not allocated until they are used.
        let cost = EncoderDecoderCost::of(&EncoderDecoder::empty(config, device)?);
        let [source, target] = [self.source, self.target].map(|count| count as u64);
        let bytes = self.precision.bytes() as u64;
        let d_model = config.d_model;
        let width =
            |activations: u64, layers: usize| 4 * (activations + ((layers + 1) * d_model) as u64);
        let encoder = config.block.cost(d_model, config.seq_len);
        let decoder = CrossedConfig(config.block.clone()).cost(d_model, config.seq_len);
        let encoder = width(encoder.activations_per_token, config.encoder.n_layers);
        let decoder = width(decoder.activations_per_token, config.decoder.n_layers);
        let states =
            source.saturating_mul(encoder.saturating_add(cost.cache_bytes_per_source_token));
        let states = states.saturating_add(target.saturating_mul(decoder));
        let logits = target.saturating_mul(3 * 4 * config.vocab_size as u64);
        Ok(MemoryEstimate::of(work)
            .with(WEIGHTS, bytes * cost.parameters)
            .with("hidden states", states)
            .with("logits", logits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_costs_what_its_products_do() {
        let block = LlamaConfig {
            d_ff: 24,
            n_heads: 4,
            n_kv_heads: 2,
            ..LlamaConfig::default()
        };
        // q and o: 2 x 16 x 16; k and v: 2 x 16 x 8; feed-forward: 3 x 16 x 24; scores and mixing of all 9.
        let products = 2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 24 + 2 * 16 * 9;
        assert_eq!(source_flops(&block, 16, 9), (2 * products) as f64);
    }
}
