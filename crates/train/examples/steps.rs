//! Training steps without a run: a small model learns to count around a circle of tokens.
//!
//! `cargo run --example steps`

use std::error::Error;

use burn::tensor::Device;
use iiet_data::Batch;
use iiet_model::LanguageModel;
use iiet_train::{Devices, ModelOptimizer, NextToken, RunConfig, Stepper};

const CONFIG: &str = r#"
[model]
d_model = 32
d_ff = 64
n_layers = 2
n_heads = 2
seq_len = 32
solver = "iterative_implicit_euler"

[train]
steps = 60
batch = 4
lr = 1e-2
warmup = 5
"#;
/// Number of tokens in the circle.
const VOCABULARY: u32 = 61;

/// Row `i` counts in increments of `i + 1`.
fn batch(rows: usize, seq: usize) -> Batch {
    let token = |i: usize| (i as u32 / seq as u32 + 1) * (i as u32 % seq as u32) % VOCABULARY;
    let next = |i: usize| (token(i) + i as u32 / seq as u32 + 1) % VOCABULARY;
    Batch {
        inputs: (0..rows * seq).map(token).collect(),
        targets: (0..rows * seq).map(next).collect(),
        weights: vec![1.0; rows * seq],
        batch: rows,
        seq,
        source: None,
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let config: RunConfig = toml::from_str(CONFIG)?;
    let device = Device::default();
    let model = config.model.config(VOCABULARY as usize, None);
    let model = LanguageModel::init(&model, config.train.seed, &device)?;

    let devices = Devices::one(device);
    let mut stepper = Stepper::new(&NextToken, &config.train, &devices);
    let mut state = stepper.start(&model, ModelOptimizer::new(&config.train));
    let batches = [batch(config.train.batch, config.model.seq_len)];
    for step in 1..=config.train.steps {
        let (next, figures) = stepper
            .step(state, batches.as_slice())
            .map_err(|not_taken| not_taken.reason)?;
        state = next;
        if step % 10 == 0 {
            println!("step {step}: loss {:.3}", figures.loss);
        }
    }
    Ok(())
}
