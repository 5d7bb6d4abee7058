//! `iiet info`

use std::path::{Path, PathBuf};

use iiet_files::{MANIFEST, Manifest};
use iiet_model::{Cost, LanguageModel, TrainingMemory, load_config};
use iiet_ode::SolverOption;

use crate::backend;
use crate::print::outln;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A model directory.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let dir = &arguments.model;
    let config = load_config(dir)?;
    let model = LanguageModel::empty(&config, &backend::for_files()?.device)?;
    let cost = Cost::of(&model);
    let total = cost.total_evaluations();
    let name = serde_json::to_value(config.solver.name)?;
    outln!(
        "solver                     {}",
        name.as_str().unwrap_or_default()
    )?;
    let options = &config.solver.options;
    if config.solver.name.reads(SolverOption::Iterations) {
        outln!(
            "iterations                 {:?}",
            options.iterations.per_layer(config.n_layers)
        )?;
    }
    if config.solver.name.reads(SolverOption::PredictorOrder) {
        outln!("predictor order            {}", options.predictor_order)?;
    }
    outln!(
        "layers                     {} of width {}, feed-forward {}, {} heads, {} key/value heads",
        config.n_layers,
        config.d_model,
        config.d_ff,
        config.n_heads,
        config.n_kv_heads
    )?;
    outln!("context                    {} tokens", config.seq_len)?;
    outln!("vocabulary                 {} tokens", config.vocab_size)?;
    outln!("parameters                 {}", cost.parameters)?;
    outln!(
        "evaluations per token      {total} ({:.2} a layer)",
        total as f64 / config.n_layers as f64
    )?;
    let flops = cost.forward_flops_per_token;
    outln!("forward FLOPs per token    {flops:.4e} at full context")?;
    outln!("training FLOPs per token   {:.4e}", 3.0 * flops)?;
    outln!(
        "memory of the weights      {} in f32",
        mebibytes(4 * cost.parameters)
    )?;
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
    let training = TrainingMemory::of(&model, 1, config.seq_len);
    outln!(
        "memory of training         about {}, and {} for each sequence of a micro-batch",
        mebibytes(training.parameters),
        mebibytes(training.activations)
    )?;
    outln!("integrity                  {}", integrity(dir)?)
}

/// Whether damage to the files would be noticed.
fn integrity(dir: &Path) -> anyhow::Result<String> {
    Ok(match Manifest::read(dir)? {
        Some(manifest) => format!(
            "{} files recorded with length and hash in {MANIFEST}, compared on loading",
            manifest.files().count()
        ),
        None => format!("unverified: without {MANIFEST}, changed bytes are not noticed"),
    })
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1u64 << 20) as f64)
}
