//! Files of segments: one segment a line.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use iiet_files::open_regular;
use serde_json::Value;

use crate::error::EvalError;
use crate::python_text::rstrip;

/// The most bytes of a line. What is read of a longer one is dropped, so that memory is bounded.
pub const SEGMENT_BYTES: usize = 1 << 20;

/// Reads the segments of a text file: its lines, without white space at their ends.
///
/// Of a file called `.jsonl` each line is a JSON string, or an object with a string called `text`.
/// These can have line breaks, which separate sentences for ROUGE-Lsum.
///
/// # Errors
/// [`EvalError::Io`], [`EvalError::NoRows`] for an empty file, and with the line's number
/// [`EvalError::NotUtf8`], [`EvalError::LongLine`] above [`SEGMENT_BYTES`] and [`EvalError::Row`].
pub fn read_segments(path: &Path) -> Result<Vec<String>, EvalError> {
    let is_json = path.extension().is_some_and(|ending| ending == "jsonl");
    let mut reader = BufReader::new(open_regular(path).map_err(EvalError::io(path))?);
    let mut segments = Vec::new();
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        // A line of the greatest length and its end.
        let mut line = (&mut reader).take(SEGMENT_BYTES as u64 + 1);
        line.read_until(b'\n', &mut bytes)
            .map_err(EvalError::io(path))?;
        if bytes.is_empty() {
            break;
        }
        let number = segments.len() + 1;
        let content = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        if content.len() > SEGMENT_BYTES {
            return Err(EvalError::LongLine {
                path: path.to_owned(),
                line: number,
                allowed: SEGMENT_BYTES,
            });
        }
        let text = std::str::from_utf8(content).map_err(|error| EvalError::NotUtf8 {
            path: path.to_owned(),
            line: number,
            byte: error.valid_up_to() + 1,
        })?;
        segments.push(match is_json {
            true => from_json(text).map_err(|message| EvalError::Row {
                path: path.to_owned(),
                row: number,
                message,
            })?,
            false => rstrip(text).to_owned(),
        });
    }
    match segments.is_empty() {
        true => Err(EvalError::NoRows {
            path: path.to_owned(),
        }),
        false => Ok(segments),
    }
}

fn from_json(line: &str) -> Result<String, String> {
    let found = match serde_json::from_str(line).map_err(|error| error.to_string())? {
        Value::String(text) => return Ok(text),
        Value::Object(mut row) => match row.remove("text") {
            Some(Value::String(text)) => return Ok(text),
            Some(_) => "an object whose \"text\" is not a string",
            None => "an object without \"text\"",
        },
        Value::Array(_) => "an array",
        _ => "a number, a truth value or null",
    };
    Err(format!(
        "found {found}; allowed: a string, or an object with a string called \"text\""
    ))
}
