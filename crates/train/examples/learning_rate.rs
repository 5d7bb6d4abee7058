//! Prints the learning rate at some steps of a run: `cargo run --example learning_rate -- configs/tiny.toml`

use std::error::Error;
use std::path::Path;

use iiet_train::{LearningRate, RunConfig};

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args()
        .nth(1)
        .ok_or("usage: learning_rate FILE.toml")?;
    let config = RunConfig::load(Path::new(&file), &[])?;
    let (steps, rate) = (config.train.steps, LearningRate::new(&config.train));
    for twentieth in 0..=20 {
        let step = (steps * twentieth / 20).max(1);
        println!("step {step:>8}: {:.3e}", rate.at(step));
    }
    Ok(())
}
