//! Which files of a folder hold a part of a data set.
//!
//! Looked for in this order, under `DIR/<task>/`: files with one of the part's names in theirs, as
//! `validation.jsonl`, `test-00000-of-00001.parquet` or `piqa-train.arrow`; the same in the folders
//! `<subset>` and `data`, as the hub has them; all files of a folder that is called as the part, as
//! `datasets` saves them (`test/data-00000-of-00001.arrow`); and for the part that is evaluated
//! files called `data-..` alone. The parts' names are those that `datasets` knows. Where files of several names of a
//! part lie side by side, such as `validation.jsonl` and `dev.jsonl`, the first name is taken.

use std::path::{Path, PathBuf};

use super::Split;
use crate::error::EvalError;

/// What `datasets` writes beside the rows it saves.
const NO_ROWS: &[&str] = &["dataset_dict.json", "dataset_info.json", "state.json"];

const ENDINGS: &[&str] = &["jsonl", "json", "parquet", "arrow"];

/// The files of a part in the order of their names, none if there are none.
///
/// # Errors
/// [`EvalError::Io`] if a folder cannot be listed.
pub(super) fn find(
    folder: &Path,
    subset: &str,
    split: Split,
    evaluated: bool,
) -> Result<Vec<PathBuf>, EvalError> {
    for place in [
        folder.to_owned(),
        folder.join(subset),
        folder.join(subset).join("data"),
        folder.join("data"),
    ] {
        let files = files_of(&place)?;
        for name in split.names() {
            let named = files.iter().filter(|file| is_named(file, name));
            let named: Vec<PathBuf> = named.cloned().collect();
            if !named.is_empty() {
                return one_format(named);
            }
        }
        for name in split.names() {
            let files = files_of(&place.join(name))?;
            if !files.is_empty() {
                return one_format(files);
            }
        }
    }
    if evaluated {
        let mut files = files_of(folder)?;
        files.retain(|file| stem(file).starts_with("data-") || stem(file) == "data");
        return one_format(files);
    }
    Ok(Vec::new())
}

/// What [`find`] looks for, in words.
pub(super) fn looked_for(task: &str, subset: &str, split: Split) -> String {
    format!(
        "{task}/{split}.jsonl, .json, .parquet or .arrow, {task}/{split}-00000-of-00001.parquet, {task}/{split}/*.arrow, and the same in {task}/{subset} and {task}/data"
    )
}

/// The same rows may lie there in two formats; those of the first ending are taken.
fn one_format(files: Vec<PathBuf>) -> Result<Vec<PathBuf>, EvalError> {
    let ending = ENDINGS
        .iter()
        .find(|ending| files.iter().any(|file| ending_of(file) == **ending));
    let same = |file: &PathBuf| ending.is_some_and(|ending| ending_of(file) == *ending);
    Ok(files.into_iter().filter(same).collect())
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>, EvalError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(EvalError::io(folder))? {
        let path = entry.map_err(EvalError::io(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let has_rows = !NO_ROWS.contains(&name.as_ref());
        if has_rows && path.is_file() && ENDINGS.contains(&ending_of(&path).as_str()) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn ending_of(path: &Path) -> String {
    path.extension().map_or_else(String::new, |ending| {
        ending.to_string_lossy().to_ascii_lowercase()
    })
}

fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |stem| {
        stem.to_string_lossy().to_ascii_lowercase()
    })
}

/// Whether a part's name is a word of the file's name.
fn is_named(path: &Path, part: &str) -> bool {
    let stem = stem(path);
    let mut words = stem.split(|c: char| !c.is_ascii_alphanumeric());
    words.any(|word| word == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str], split: Split, evaluated: bool) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let files = find(folder.path(), "ARC-Easy", split, evaluated).unwrap();
        let relative = |file: PathBuf| {
            let relative = file.strip_prefix(folder.path()).unwrap();
            relative.to_string_lossy().replace('\\', "/")
        };
        files.into_iter().map(relative).collect()
    }

    #[test]
    fn the_layouts_of_the_hub_and_of_datasets() {
        use Split::{Test, Train, Validation};
        for (names, split, expected) in [
            (
                &["test.jsonl", "train.jsonl"][..],
                Test,
                &["test.jsonl"][..],
            ),
            (
                &[
                    "ARC-Easy/test-00000-of-00002.parquet",
                    "ARC-Easy/test-00001-of-00002.parquet",
                ],
                Test,
                &[
                    "ARC-Easy/test-00000-of-00002.parquet",
                    "ARC-Easy/test-00001-of-00002.parquet",
                ],
            ),
            (&["data/valid.json"], Validation, &["data/valid.json"]),
            (
                &[
                    "validation/data-00000-of-00001.arrow",
                    "train/dataset_info.json",
                    "train/state.json",
                    "train/data-00000-of-00001.arrow",
                ],
                Train,
                &["train/data-00000-of-00001.arrow"],
            ),
            (&["ai2_arc-train.arrow"], Train, &["ai2_arc-train.arrow"]),
            (&["test.parquet", "test.jsonl"], Test, &["test.jsonl"]),
            (&["latest.jsonl", "notes.txt"], Test, &[]),
            (
                &["dev.jsonl", "validation.jsonl"],
                Validation,
                &["validation.jsonl"],
            ),
        ] {
            assert_eq!(found(names, split, false), expected, "{names:?}");
        }
        let saved = ["data-00000-of-00001.arrow", "state.json"];
        assert_eq!(found(&saved, Test, true), ["data-00000-of-00001.arrow"]);
        assert_eq!(found(&saved, Train, false), [""; 0]);
    }
}
