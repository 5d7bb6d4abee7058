//! What `iiet info` says of a sequence-to-sequence model.

use std::path::Path;

use iiet_model::{EncoderDecoder, EncoderDecoderCost, StackConfig};
use iiet_ode::Options;

use super::{attention, integrity, options, weights};
use crate::backend;
use crate::print::outln;

pub(super) fn run(dir: &Path) -> anyhow::Result<()> {
    let config = EncoderDecoder::load_config(dir)?;
    let model = EncoderDecoder::empty(&config, &backend::for_files()?.device)?;
    let cost = EncoderDecoderCost::of(&model);
    let block = &config.block;
    outln!("kind                       sequence to sequence: an encoder and a decoder")?;
    side("encoder", &config.encoder, &cost.encoder_evaluations)?;
    side("decoder", &config.decoder, &cost.decoder_evaluations)?;
    outln!(
        "layers                     of width {}, feed-forward {}, {} heads, {} key/value heads",
        config.d_model,
        block.d_ff,
        block.n_heads,
        block.n_kv_heads
    )?;
    if let Some(attention) = attention(block) {
        outln!("attention                  {attention}")?;
    }
    outln!(
        "context                    {} tokens of a source, and as many of a target",
        config.seq_len
    )?;
    outln!("vocabulary                 {} tokens", config.vocab_size)?;
    outln!("label smoothing            {}", config.label_smoothing)?;
    outln!("parameters                 {}", cost.parameters)?;
    outln!(
        "forward FLOPs per token    {:.4e} of a source, {:.4e} of a target, at full context",
        cost.flops_per_source_token,
        cost.flops_per_target_token
    )?;
    weights(dir, cost.parameters)?;
    outln!(
        "keys and values per token  {} bytes in f32 of a source, {} of a target",
        cost.cache_bytes_per_source_token,
        cost.cache_bytes_per_target_token
    )?;
    outln!("integrity                  {}", integrity(dir)?)
}

/// The solver of a side, its options and what it costs.
fn side(name: &str, stack: &StackConfig, evaluations: &[usize]) -> anyhow::Result<()> {
    let total: usize = evaluations.iter().sum();
    outln!(
        "{name:<26} {} layers, {}",
        stack.n_layers,
        stack.solver.name()
    )?;
    for (key, value) in options(&stack.solver, stack.n_layers)? {
        outln!("  {key:<24} {value}")?;
    }
    outln!(
        "  evaluations per token    {total} ({:.2} per layer)",
        total as f64 / stack.n_layers as f64
    )
}
