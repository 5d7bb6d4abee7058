//! The costs of each solver at one model size: `cargo run --release --example sizes`
//!
//! No weights are allocated.

use std::error::Error;

use burn::tensor::Device;
use iiet_model::{Cost, LanguageModel, ModelConfig};
use iiet_ode::{Options, SolverConfig};

fn main() -> Result<(), Box<dyn Error>> {
    println!(
        "solver                      parameters  evaluations  GFLOP per token  cache per token"
    );
    for name in SolverConfig::NAMES {
        let config = ModelConfig {
            solver: SolverConfig::named(name)?,
            ..ModelConfig::default()
        };
        let model: LanguageModel = LanguageModel::empty(&config, &Device::default())?;
        let cost = Cost::of(&model);
        println!(
            "{name:<26}  {:>10}  {:>11}  {:>15.3}  {:>11} KiB",
            cost.parameters,
            cost.total_evaluations(),
            cost.forward_flops_per_token / 1e9,
            cost.cache_bytes_per_token / 1024,
        );
    }
    Ok(())
}
