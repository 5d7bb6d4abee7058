//! Rows out of JSON Lines, JSON, Parquet and Arrow IPC.
//!
//! Parquet and Arrow go by way of `arrow-json`, so that whatever type a column has on disk
//! (dictionaries, large strings, lists of structs), a row is the object that JSON Lines would hold.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_json::LineDelimitedWriter;
use iiet_data::guarded;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value};

use super::{Document, arrow_lengths};
use crate::error::EvalError;

/// The formats in words.
const PARQUET: &str = "Parquet";
const ARROW: &str = "Arrow IPC";

/// All rows of a file, by its ending.
///
/// # Errors
/// If it cannot be read or has no rows; [`EvalError::Row`] names the row that is no object.
pub fn read(path: &Path) -> Result<Vec<Document>, EvalError> {
    let place: Arc<Path> = path.into();
    let file = File::open(path).map_err(EvalError::io(path))?;
    let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
    let rows = match ending.to_str() {
        Some("parquet") => guarded(|| parquet(&place, file))
            .unwrap_or_else(|panic| Err(unreadable(path, PARQUET, &panic)))?,
        Some("arrow") => guarded(|| arrow(&place, file))
            .unwrap_or_else(|panic| Err(unreadable(path, ARROW, &panic)))?,
        Some("json") => json(&place, file)?,
        _ => json_lines(&place, BufReader::new(file))?,
    };
    match rows.is_empty() {
        true => Err(EvalError::NoRows {
            path: path.to_owned(),
        }),
        false => Ok(rows),
    }
}

fn json_lines(path: &Arc<Path>, reader: impl BufRead) -> Result<Vec<Document>, EvalError> {
    let mut rows = Vec::new();
    for (index, line) in reader.lines().enumerate() {
        let row = index + 1;
        let line = line.map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidData => EvalError::Row {
                path: path.to_path_buf(),
                row,
                message: "not UTF-8".to_owned(),
            },
            _ => EvalError::io(path.as_ref())(error),
        })?;
        if line.trim().is_empty() {
            continue;
        }
        let value = serde_json::from_str(&line).map_err(|error| EvalError::Row {
            path: path.to_path_buf(),
            row,
            message: format!("not JSON: {error}"),
        })?;
        rows.push(Document::new(path, row, object(path, row, value)?));
    }
    Ok(rows)
}

/// `.json` is an array of objects, or JSON Lines by another name.
fn json(path: &Arc<Path>, mut file: File) -> Result<Vec<Document>, EvalError> {
    let mut text = String::new();
    file.read_to_string(&mut text)
        .map_err(EvalError::io(path.as_ref()))?;
    if !text.trim_start().starts_with('[') {
        return json_lines(path, text.as_bytes());
    }
    let values: Vec<Value> =
        serde_json::from_str(&text).map_err(|error| unreadable(path, "JSON", &error))?;
    let rows = values.into_iter().enumerate();
    rows.map(|(index, value)| {
        let fields = object(path, index + 1, value)?;
        Ok(Document::new(path, index + 1, fields))
    })
    .collect()
}

fn object(path: &Path, row: usize, value: Value) -> Result<Map<String, Value>, EvalError> {
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err(EvalError::Row {
            path: path.to_owned(),
            row,
            message: "not an object".to_owned(),
        }),
    }
}

fn parquet(path: &Arc<Path>, file: File) -> Result<Vec<Document>, EvalError> {
    let failed = |error: &dyn std::fmt::Display| unreadable(path, PARQUET, error);
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(|error| failed(&error))?;
    batches(path, PARQUET, reader)
}

fn arrow(path: &Arc<Path>, mut file: File) -> Result<Vec<Document>, EvalError> {
    let failed = |error: &dyn std::fmt::Display| unreadable(path, ARROW, error);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .map_err(EvalError::io(path.as_ref()))?;
    arrow_lengths::check(&bytes).map_err(|error| failed(&error))?;
    if bytes.starts_with(arrow_lengths::FILE) {
        let reader = FileReader::try_new(Cursor::new(bytes), None);
        batches(path, ARROW, reader.map_err(|error| failed(&error))?)
    } else {
        let reader = StreamReader::try_new(Cursor::new(bytes), None);
        batches(path, ARROW, reader.map_err(|error| failed(&error))?)
    }
}

fn batches(
    path: &Arc<Path>,
    format: &'static str,
    reader: impl RecordBatchReader,
) -> Result<Vec<Document>, EvalError> {
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|error| unreadable(path, format, &error))?;
        for fields in objects(&batch).map_err(|message| unreadable(path, format, &message))? {
            rows.push(Document::new(path, rows.len() + 1, fields));
        }
    }
    Ok(rows)
}

fn objects(batch: &RecordBatch) -> Result<Vec<Map<String, Value>>, String> {
    let mut lines = Vec::new();
    let mut writer = LineDelimitedWriter::new(&mut lines);
    writer
        .write(batch)
        .and_then(|()| writer.finish())
        .map_err(|error| error.to_string())?;
    let lines = lines.split(|byte| *byte == b'\n');
    lines
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).map_err(|error| error.to_string()))
        .collect()
}

fn unreadable(path: &Path, format: &'static str, error: &dyn std::fmt::Display) -> EvalError {
    EvalError::Unreadable {
        path: path.to_owned(),
        format,
        message: error.to_string(),
    }
}
