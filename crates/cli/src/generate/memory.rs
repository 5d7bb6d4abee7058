//! Whether the texts asked for fit into memory.

use iiet_model::{Inference, load_config};

use super::Arguments;
use crate::backend::Chosen;

/// Tokens of a prompt that go through the layers in one pass.
const CHUNK: usize = 512;

/// Refuses `texts` texts side by side, the longest prompt of which has so many bytes, if their weights,
/// keys and values exceed the memory that is free.
///
/// # Errors
///
/// A sentence with the parts and what to lower.
pub(super) fn check(
    arguments: &Arguments,
    chosen: &Chosen,
    texts: usize,
    prompt_bytes: usize,
) -> anyhow::Result<()> {
    if !chosen.on_host {
        return Ok(());
    }
    let config = load_config(&arguments.model)?;
    let config = arguments.corrections.configure(config)?;
    let precision = arguments.precision.on(chosen)?;
    // A token stands for a byte or more, and a cache at most doubles when it is full.
    let tokens = prompt_bytes
        .saturating_add(arguments.max_tokens)
        .saturating_add(1);
    let cached = tokens.saturating_mul(2).min(config.seq_len);
    let inference = Inference {
        precision,
        tokens: texts * CHUNK.min(cached),
        logits: texts,
        cached: texts * cached,
        cache: arguments.cache.unwrap_or(precision),
    };
    let work = match texts {
        1 => "continuing a text".to_owned(),
        _ => format!("continuing {texts} texts side by side"),
    };
    let estimate = inference.memory(work, &config, &chosen.device)?;
    let estimate = estimate.stored_in(&arguments.model)?;
    estimate.check(match texts {
        1 => "lower --max-tokens, or use --precision bf16",
        _ => "lower --batch-size or --max-tokens, or use --precision bf16",
    })?;
    Ok(())
}
