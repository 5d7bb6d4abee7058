//! `iiet info`

mod sequence;

use std::path::{Path, PathBuf};

use iiet_files::{MANIFEST, Manifest};
use iiet_model::{
    AttentionBias, Cost, LanguageModel, LlamaConfig, MicroBatch, ModelKind, TrainingMemory,
    load_config, model_kind, quantisation, weight_bytes,
};
use iiet_ode::{IterationSchedule, Options, SolverConfig};
use toml::{Table, Value};

use crate::backend;
use crate::print::outln;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A model directory, that of a run, a name on the Hugging Face hub, or a GGUF file.
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let dir = &arguments.model;
    if model_kind(dir)? == ModelKind::EncoderDecoder {
        return sequence::run(dir);
    }
    let config = load_config(dir)?;
    let model: LanguageModel = LanguageModel::empty(&config, &backend::for_files()?.device)?;
    let cost = Cost::of(&model);
    let block = &config.block;
    let total = cost.total_evaluations();
    outln!("solver                     {}", config.solver.name())?;
    for (key, value) in options(&config.solver, config.n_layers)? {
        outln!("{key:<26} {value}")?;
    }
    outln!(
        "layers                     {} of width {}, feed-forward {}, {} heads, {} key/value heads",
        config.n_layers,
        config.d_model,
        block.d_ff,
        block.n_heads,
        block.n_kv_heads
    )?;
    if let Some(attention) = attention(&config.block) {
        outln!("attention                  {attention}")?;
    }
    outln!("context                    {} tokens", config.seq_len)?;
    outln!("vocabulary                 {} tokens", config.vocab_size)?;
    outln!("parameters                 {}", cost.parameters)?;
    outln!(
        "evaluations per token      {total} ({:.2} per layer)",
        total as f64 / config.n_layers as f64
    )?;
    let flops = cost.forward_flops_per_token;
    outln!("forward FLOPs per token    {flops:.4e} at full context")?;
    outln!("training FLOPs per token   {:.4e}", 3.0 * flops)?;
    weights(dir, cost.parameters)?;
    let cache = cost.cache_bytes_per_token;
    outln!(
        "keys and values per token  {cache} bytes in f32, {} in f16 or bf16",
        cache / 2
    )?;
    outln!(
        "keys and values at most    {} in f32, for {} tokens",
        mebibytes(cache.saturating_mul(config.seq_len as u64)),
        config.seq_len
    )?;
    let training = TrainingMemory::of(&model, &MicroBatch::of(config.seq_len));
    outln!(
        "memory of training         about {}, and {} for each sequence of a micro-batch",
        mebibytes(training.parameters()),
        mebibytes(training.activations)
    )?;
    outln!("integrity                  {}", integrity(dir)?)
}

/// The sizes of the weights, on disk and in memory.
fn weights(dir: &Path, parameters: u64) -> anyhow::Result<()> {
    let bytes = weight_bytes(dir)?;
    outln!(
        "weights on disk            {}, {:.2} bytes per parameter",
        mebibytes(bytes),
        bytes as f64 / parameters as f64
    )?;
    let Some(config) = quantisation(dir)? else {
        let floats = mebibytes(4 * parameters);
        return outln!("memory of the weights      {floats} in f32");
    };
    let scheme = config.scheme;
    outln!(
        "matrices                   {} bits in groups of {}, {} zero points",
        scheme.bits().count(),
        scheme.group(),
        if scheme.symmetric() {
            "without"
        } else {
            "with"
        }
    )?;
    if let Some(bits) = config.activations.bits() {
        outln!("inputs of products         rounded to {bits} bits in the same groups")?;
    }
    outln!("memory of the weights      {}", mebibytes(bytes))
}

/// What attention has beside LLaMA's, if anything.
fn attention(block: &LlamaConfig) -> Option<String> {
    let width = block
        .head_dim
        .map(|width| format!("heads of width {width}"));
    let biases = match block.attention_bias {
        AttentionBias::None => None,
        AttentionBias::Qkv => Some("biases on queries, keys and values".to_owned()),
        AttentionBias::All => Some("biases on all projections".to_owned()),
    };
    let norms = block
        .qk_norm
        .then(|| "a norm on each head's queries and keys".to_owned());
    let rope = block
        .rope_scaling
        .map(|rope| format!("rotation stretched as {rope}"));
    let parts: Vec<String> = [width, biases, norms, rope].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Whether changes of the files would be detected.
fn integrity(dir: &Path) -> anyhow::Result<String> {
    Ok(match Manifest::read(dir)? {
        Some(manifest) => format!(
            "{} files recorded with length and hash in {MANIFEST}, compared on loading",
            manifest.files().count()
        ),
        None => format!("unverified: without {MANIFEST}, changed bytes are not detected"),
    })
}

/// The solver's options, with one number per layer for a schedule.
fn options(of: &SolverConfig, n_layers: usize) -> anyhow::Result<Vec<(String, Value)>> {
    let mut solver = of.clone();
    if let Some(schedule) = of.iterations() {
        let per_layer = IterationSchedule::PerLayer(schedule.per_layer(n_layers));
        solver = solver.with_iterations(per_layer);
    }
    let table = Table::try_from(solver)?;
    Ok(table.into_iter().filter(|(key, _)| key != "name").collect())
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1u64 << 20) as f64)
}
