//! Tasks from the held-out crates of the default corpus: accuracy where there is no data set.
//!
//! The crates are those that training sets aside for validation (the default share), so no model
//! trained on the default corpus has seen them. Items are a function of `Cargo.lock` alone, made
//! from characters and not from any model's tokens, and kept as JSON Lines under
//! `<cache>/heldout-<key>/`. [`write_held_out`] writes them for machines that have no such workspace.

mod choice;
mod cloze;
mod passages;
mod summaries;

use std::io::Write;
use std::path::{Path, PathBuf};

use iiet_data::{DataError, HeldOutCrates, HeldOutFile};
use iiet_files::write_file;
use serde_json::{Map, Value};

pub use choice::choice;
pub use cloze::cloze;
pub use passages::passages;
use summaries::summaries;

use crate::data::{self, Part};
use crate::error::EvalError;
use crate::evaluation::Settings;
use crate::task::Source;
use crate::tasks::TASKS;

/// Items of each task.
pub const ITEMS: usize = 1024;

/// Changes whenever the items change.
const VERSION: u32 = 1;

/// Makes the rows of a task from the files held out.
pub type FromFiles = fn(&[HeldOutFile]) -> Result<Vec<Map<String, Value>>, EvalError>;

/// Makes the rows of a task.
#[derive(Clone, Copy, Debug)]
pub enum Generate {
    /// From the files held out.
    Files(FromFiles),
    /// From the documented functions held out.
    Summaries,
}

/// The rows of a task: from a folder of such items, else from the cache, or made and put there.
///
/// # Errors
/// [`EvalError::NoHeldOut`] if the folder has none of this task; [`EvalError::NoWorkspace`] if the
/// default corpus cannot be found, [`EvalError::TooFewItems`] if it is too small, and errors of the
/// disk.
pub(crate) fn load(
    task: &'static str,
    generate: Generate,
    settings: &Settings,
) -> Result<Part, EvalError> {
    let part = |path: PathBuf, place: String| {
        Ok(Part {
            split: None,
            rows: data::read(&path)?,
            place,
        })
    };
    if let Some(folder) = &settings.held_out {
        let path = folder.join(file(task));
        if !path.exists() {
            return Err(EvalError::NoHeldOut { path });
        }
        let place = path.display().to_string();
        return part(path, place);
    }
    let held_out = locate(task, &settings.workspace)?;
    let folder = settings
        .cache
        .join(format!("heldout-{}-{VERSION}", held_out.key()));
    let path = folder.join(file(task));
    if !path.exists() {
        write(&path, &rows(task, generate, &mut HeldOut::of(&held_out))?)?;
    }
    let place = format!(
        "the locked dependencies of {}",
        held_out.workspace().display()
    );
    part(path, place)
}

/// Writes the items of all generated tasks to a folder, for `--heldout` on another machine: they depend
/// on the `Cargo.lock` of the workspace around `workspace` alone. The files are returned.
///
/// # Errors
/// Those of making them, as for an evaluation, and of writing.
pub fn write_held_out(workspace: &Path, folder: &Path) -> Result<Vec<PathBuf>, EvalError> {
    let tasks = TASKS.iter().filter_map(|task| match task.source {
        Source::HeldOut(generate) => Some((task.name, generate)),
        _ => None,
    });
    let tasks: Vec<(&'static str, Generate)> = tasks.collect();
    let Some((first, _)) = tasks.first() else {
        return Ok(Vec::new());
    };
    let crates = locate(first, workspace)?;
    let mut held_out = HeldOut::of(&crates);
    let mut written = Vec::new();
    for (task, generate) in tasks {
        let path = folder.join(file(task));
        write(&path, &rows(task, generate, &mut held_out)?)?;
        written.push(path);
    }
    Ok(written)
}

fn file(task: &str) -> String {
    format!("{task}.jsonl")
}

fn locate(task: &str, workspace: &Path) -> Result<HeldOutCrates, EvalError> {
    HeldOutCrates::locate(workspace).map_err(|error| match error {
        DataError::CargoMetadata { message } => EvalError::NoWorkspace {
            task: task.to_owned(),
            folder: std::path::absolute(workspace).unwrap_or_else(|_| workspace.to_owned()),
            reason: message,
        },
        other => other.into(),
    })
}

/// What is held out; files are read when they are asked for, and once.
struct HeldOut<'a> {
    crates: &'a HeldOutCrates,
    files: Option<Vec<HeldOutFile>>,
}

impl<'a> HeldOut<'a> {
    fn of(crates: &'a HeldOutCrates) -> Self {
        Self {
            crates,
            files: None,
        }
    }

    fn files(&mut self) -> Result<&[HeldOutFile], EvalError> {
        if self.files.is_none() {
            self.files = Some(self.crates.read()?);
        }
        Ok(self.files.as_deref().unwrap_or_default())
    }
}

fn rows(
    task: &'static str,
    generate: Generate,
    held_out: &mut HeldOut<'_>,
) -> Result<Vec<Map<String, Value>>, EvalError> {
    let rows = match generate {
        Generate::Files(generate) => generate(held_out.files()?)?,
        Generate::Summaries => summaries(&held_out.crates.summaries()?),
    };
    match rows.len() < ITEMS {
        true => Err(EvalError::TooFewItems {
            task,
            found: rows.len(),
            wanted: ITEMS,
        }),
        false => Ok(rows),
    }
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
