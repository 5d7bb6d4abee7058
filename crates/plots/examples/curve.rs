//! Draws the curves of a run from its `metrics.jsonl`, beside it as `curve.svg`.
//!
//! `cargo run --example curve -- runs/tiny`

use std::error::Error;
use std::path::PathBuf;

use iiet_plots::{RunLabel, draw_curve};
use iiet_train::Record;

fn main() -> Result<(), Box<dyn Error>> {
    let run = std::env::args()
        .nth(1)
        .ok_or("which run? give its directory")?;
    let run = PathBuf::from(run);
    let text = std::fs::read_to_string(run.join("metrics.jsonl"))?;
    let records: Result<Vec<Record>, _> = text.lines().map(serde_json::from_str).collect();
    let label = RunLabel {
        name: run.display().to_string(),
        // The unigram entropy is not in the log.
        ..RunLabel::default()
    };
    draw_curve(&run.join("curve.svg"), &records?, &label)?;
    Ok(())
}
