//! Prints the table of one or several `sweep.jsonl`.
//!
//! `cargo run --example table -- sweeps/tiny/sweep.jsonl`

use std::error::Error;
use std::path::Path;

use iiet_sweep::{Table, read_results};

fn main() -> Result<(), Box<dyn Error>> {
    let mut results = Vec::new();
    for path in std::env::args().skip(1) {
        results.append(&mut read_results(Path::new(&path))?);
    }
    println!("{}", Table::of(&results, None)?.to_markdown(&results));
    Ok(())
}
