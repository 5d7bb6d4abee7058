//! Draws the heat map of an `influence.json` again, beside it with the ending `.svg`.
//!
//! `cargo run --example heat_map -- runs/student/influence.json`

use std::error::Error;
use std::path::PathBuf;

use iiet_distill::Influence;
use iiet_plots::draw_heat_map;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("which influence.json?")?;
    let path = PathBuf::from(path);
    let influence: Influence = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    draw_heat_map(&path.with_extension("svg"), &influence)?;
    Ok(())
}
