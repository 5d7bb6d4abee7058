//! Passages of whole lines, about a kilobyte each.

use iiet_data::HeldOutFile;
use serde_json::{Map, Value};

use super::{ITEMS, line_starts, row};
use crate::error::EvalError;
use crate::python_random::PythonRandom;

/// Length of a passage in bytes; one that exceeds the upper bound because of a long line is left
/// out.
const BYTES: std::ops::RangeInclusive<usize> = 900..=1200;

/// Passages drawn evenly from all of the held-out text without overlap.
///
/// # Errors
/// None; the signature is that of [`Generate`](super::Generate).
pub fn passages(files: &[HeldOutFile]) -> Result<Vec<Map<String, Value>>, EvalError> {
    let mut all = Vec::new();
    for file in files {
        let starts = line_starts(&file.text);
        let mut from = 0;
        for to in starts {
            if to - from >= *BYTES.start() {
                if to - from <= *BYTES.end() {
                    all.push((file, &file.text[from..to]));
                }
                from = to;
            }
        }
    }
    let mut chosen = PythonRandom::new(1)
        .sample(all.len(), ITEMS.min(all.len()))
        .unwrap_or_default();
    chosen.sort_unstable();
    let chosen = chosen.into_iter().map(|at| all[at]);
    Ok(chosen
        .map(|(file, text)| row([("text", text.into()), ("file", file.place.as_str().into())]))
        .collect())
}
