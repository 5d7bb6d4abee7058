//! The memory of a beam search, estimated before it is taken.

use burn::tensor::Device;
use iiet_model::{
    EncoderDecoder, EncoderDecoderConfig, EncoderDecoderCost, MemoryEstimate, ModelError,
    Precision, SequenceInference,
};

use super::BeamSearch;

/// The sources that are decoded together, and the dtypes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BeamBatch {
    /// The number of sources.
    pub sources: usize,
    /// The tokens of the longest source; the context is the most.
    pub longest: usize,
    /// The dtype of the matrices.
    pub precision: Precision,
    /// The dtype of the targets' keys and values.
    pub cache: Precision,
}

impl BeamSearch {
    /// An estimate of the memory for such a batch; `work` describes it, as in "translating 8 sources".
    ///
    /// The keys and values of a source are there once, those of a target once for each beam.
    ///
    /// # Errors
    ///
    /// The errors of [`EncoderDecoderConfig::validate`].
    pub fn memory(
        &self,
        batch: BeamBatch,
        work: impl Into<String>,
        config: &EncoderDecoderConfig,
        device: &Device,
    ) -> Result<MemoryEstimate, ModelError> {
        let BeamBatch {
            sources,
            longest,
            precision,
            cache,
        } = batch;
        let rows = sources.saturating_mul(self.beam);
        let inference = SequenceInference {
            precision,
            source: sources.saturating_mul(longest.min(config.seq_len)),
            target: rows,
        };
        let estimate = inference.memory(work, config, device)?;
        // Its weights are not allocated until they are used.
        let cost = EncoderDecoderCost::of(&EncoderDecoder::empty(config, device)?);
        let evaluations: usize = cost.decoder_evaluations.iter().sum();
        let tokens = self.max_tokens.saturating_add(1).min(config.seq_len);
        // A cache at most doubles when it is full, and one at a time is copied when beams are chosen.
        let slots = tokens.saturating_mul(2).min(config.seq_len);
        let of_token = cost.cache_bytes_per_target_token / 4 * cache.bytes() as u64;
        let of_token = of_token + of_token / evaluations.max(1) as u64;
        let bytes = of_token.saturating_mul(rows.saturating_mul(slots) as u64);
        Ok(estimate.with("keys and values of targets", bytes))
    }
}
