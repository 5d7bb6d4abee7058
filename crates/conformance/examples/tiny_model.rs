//! Writes the initial model of `golden/training.py`: `cargo run --example tiny_model DIR`.

use std::path::Path;

use burn::tensor::Device;
use iiet_conformance::tiny_model;
use iiet_model::{SaveOptions, save};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).ok_or("expected a directory")?;
    let model = tiny_model(&Device::default())?;
    save(&model, Path::new(&dir), &SaveOptions::default())?;
    Ok(())
}
