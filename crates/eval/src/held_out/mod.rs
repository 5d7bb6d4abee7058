//! Tasks from the held-out crates of the default corpus: accuracy where there is no data set.
//!
//! The crates are those that training sets aside for validation (the default share), so no model
//! trained on the default corpus has seen them. Items are a function of `Cargo.lock` alone, made
//! from characters and not from any model's tokens, and kept as JSON Lines under
//! `<cache>/heldout-<key>/`.

mod choice;
mod cloze;
mod passages;

use std::io::Write;
use std::path::Path;

use iiet_data::{HeldOutCrates, HeldOutFile};
use iiet_files::write_file;
use serde_json::{Map, Value};

pub use choice::choice;
pub use cloze::cloze;
pub use passages::passages;

use crate::data::{self, Document};
use crate::error::EvalError;

/// Items of each task.
pub const ITEMS: usize = 1024;

/// Changes whenever the items change.
const VERSION: u32 = 1;

/// Makes the rows of a task from the files held out.
pub type Generate = fn(&[HeldOutFile]) -> Result<Vec<Map<String, Value>>, EvalError>;

/// The rows of a task: from the cache, or made and put there.
///
/// # Errors
/// [`EvalError::Data`] if the default corpus cannot be found, [`EvalError::TooFewItems`] if it is
/// too small, and errors of the disk.
pub fn load(
    task: &'static str,
    generate: Generate,
    workspace: &Path,
    cache: &Path,
) -> Result<Vec<Document>, EvalError> {
    let held_out = HeldOutCrates::locate(workspace)?;
    let folder = cache.join(format!("heldout-{}-{VERSION}", held_out.key()));
    let path = folder.join(format!("{task}.jsonl"));
    if !path.exists() {
        let rows = generate(&held_out.read()?)?;
        if rows.len() < ITEMS {
            return Err(EvalError::TooFewItems {
                task,
                found: rows.len(),
                wanted: ITEMS,
            });
        }
        write(&path, &rows)?;
    }
    data::read(&path)
}

/// Writes rows; a file of this name is whole.
fn write(path: &Path, rows: &[Map<String, Value>]) -> Result<(), EvalError> {
    let mut lines = String::new();
    for row in rows {
        lines.push_str(&Value::Object(row.clone()).to_string());
        lines.push('\n');
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(EvalError::io(folder))?;
    }
    write_file(path, |file| file.write_all(lines.as_bytes())).map_err(EvalError::io(path))?;
    Ok(())
}

/// A row of text fields.
fn row<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    let fields = fields.into_iter();
    fields
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// The byte at which each line begins, and the end of the text.
fn line_starts(text: &str) -> Vec<usize> {
    let after_ends = text.match_indices('\n').map(|(at, _)| at + 1);
    let mut starts: Vec<usize> = std::iter::once(0).chain(after_ends).collect();
    if starts.last() != Some(&text.len()) {
        starts.push(text.len());
    }
    starts
}
