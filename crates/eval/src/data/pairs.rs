//! Sources and their targets, in files: objects with a text `source` and a text `target`, or a list of texts
//! `targets`.

use std::path::Path;

use super::{Document, Part, Split, find, read_all};
use crate::error::EvalError;

/// The pairs of `data/task`: of the part wished for, else of test, else of validation.
///
/// # Errors
/// [`EvalError::NoData`] if there are no files, or an error about a file or a row.
pub(crate) fn pairs(
    task: &str,
    data: Option<&Path>,
    wish: Option<Split>,
) -> Result<Part, EvalError> {
    let parts = match wish {
        Some(wish) => vec![wish],
        None => vec![Split::Test, Split::Validation],
    };
    for split in &parts {
        let Some(data) = data else { break };
        let files = find::find(&data.join(task), "", *split, *split == Split::Test)?;
        if files.is_empty() {
            continue;
        }
        let rows = read_all(&files)?;
        check_numbers(&rows)?;
        let names = files.iter().map(|file| file.display().to_string());
        return Ok(Part {
            split: Some(*split),
            rows,
            place: names.collect::<Vec<_>>().join(", "),
        });
    }
    Err(EvalError::NoData {
        task: task.to_owned(),
        split: parts[0],
        place: match data {
            Some(data) => format!("in {}", data.join(task).display()),
            None => "without --data DIR".to_owned(),
        },
        looked_for: find::looked_for(task, "", parts[0]),
        remedy:
            "each row has a text \"source\" and a text \"target\", or a list of texts \"targets\""
                .to_owned(),
    })
}

/// The text to translate or summarise.
///
/// # Errors
/// [`EvalError::Field`] if there is none, or it is empty.
pub(crate) fn source(document: &Document) -> Result<String, EvalError> {
    let source = document.text("source")?;
    match source.trim().is_empty() {
        true => Err(document.wrong(
            "source",
            document.field("source"),
            "a text that is not empty",
        )),
        false => Ok(source.to_owned()),
    }
}

/// The references.
///
/// # Errors
/// [`EvalError::Field`] if there are none.
pub(crate) fn references(document: &Document) -> Result<Vec<String>, EvalError> {
    let texts = match document.field("targets") {
        Some(_) => document.texts("targets")?,
        None => vec![document.text("target")?],
    };
    Ok(texts.into_iter().map(str::to_owned).collect())
}

/// Scores need as many references for every source.
fn check_numbers(rows: &[Document]) -> Result<(), EvalError> {
    let Some(first) = rows.first() else {
        return Ok(());
    };
    let expected = references(first)?.len();
    for row in rows {
        if references(row)?.len() != expected {
            let expected = format!("{expected} of them, as in the first row");
            return Err(row.wrong("targets", row.field("targets"), &expected));
        }
    }
    Ok(())
}
