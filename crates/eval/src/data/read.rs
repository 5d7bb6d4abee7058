//! Reads rows of JSON Lines, JSON, Parquet and Arrow IPC.
//!
//! Parquet and Arrow are converted by `arrow-json`, so that for every column type on disk
//! (dictionaries, large strings, lists of structs) a row is the same object as in JSON Lines.
//!
//! All rows of a file are held in memory. Their memory is counted, and a file whose rows need
//! memory out of proportion to its size is rejected early.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Write};
use std::path::Path;
use std::sync::Arc;

use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_json::LineDelimitedWriter;
use iiet_data::{DataError, Limits, guarded, parquet_size};
use iiet_files::open_regular;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};

use super::json::Json;
use super::{Document, arrow_lengths};
use crate::error::EvalError;

/// The formats in words.
const PARQUET: &str = "Parquet";
const ARROW: &str = "Arrow IPC";

/// The longest row of a JSON file, in bytes.
const ROW_BYTES: u64 = 16 << 20;
/// What the rows of a file may take in memory, beside [`PER_BYTE`] for each byte of it.
const FREE_BYTES: u64 = 256 << 20;
const PER_BYTE: u64 = 4;
/// Parquet rows are decoded in batches of about this size.
const BATCH_BYTES: u64 = 8 << 20;

/// All rows of a file, by its ending.
///
/// # Errors
/// If it cannot be read or has no rows; [`EvalError::Row`] names the row that is no object,
/// [`EvalError::TooLarge`] says what the rows may take.
pub fn read(path: &Path) -> Result<Vec<Document>, EvalError> {
    let file = open_regular(path).map_err(EvalError::io(path))?;
    let bytes = file.metadata().map_err(EvalError::io(path))?.len();
    let mut rows = Rows {
        path: path.into(),
        allowed: bytes.saturating_mul(PER_BYTE).saturating_add(FREE_BYTES),
        taken: 0,
        rows: Vec::new(),
    };
    let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
    match ending.to_str() {
        Some("parquet") => guarded(|| parquet(&mut rows, file))
            .unwrap_or_else(|panic| Err(unreadable(path, PARQUET, &panic)))?,
        Some("arrow") => guarded(|| arrow(&mut rows, file))
            .unwrap_or_else(|panic| Err(unreadable(path, ARROW, &panic)))?,
        Some("json") => json(&mut rows, BufReader::new(file))?,
        _ => json_lines(&mut rows, BufReader::new(file))?,
    }
    match rows.rows.is_empty() {
        true => Err(EvalError::NoRows {
            path: path.to_owned(),
        }),
        false => Ok(rows.rows),
    }
}

/// The rows read so far, and what they take.
struct Rows {
    path: Arc<Path>,
    /// In bytes.
    allowed: u64,
    taken: u64,
    rows: Vec<Document>,
}

impl Rows {
    /// Appends the row of this number, counted from 1.
    fn push(&mut self, row: usize, value: Json) -> Result<(), EvalError> {
        let Json::Object(fields) = value else {
            return Err(self.wrong(row, "not an object".to_owned()));
        };
        let document = Document::ordered(&self.path, row, fields);
        self.taken = self.taken.saturating_add(document.memory());
        if self.taken > self.allowed {
            return Err(self.too_large());
        }
        self.rows.push(document);
        Ok(())
    }

    fn too_large(&self) -> EvalError {
        EvalError::TooLarge {
            path: self.path.to_path_buf(),
            what: "the file's rows take",
            allowed: self.allowed,
        }
    }

    fn wrong(&self, row: usize, message: String) -> EvalError {
        EvalError::Row {
            path: self.path.to_path_buf(),
            row,
            message,
        }
    }

    /// For a row beyond [`ROW_BYTES`].
    fn too_long(&self, row: usize) -> EvalError {
        self.wrong(
            row,
            format!("more than {ROW_BYTES} bytes, the most that is read as one row"),
        )
    }
}

fn json_lines(rows: &mut Rows, mut reader: impl BufRead) -> Result<(), EvalError> {
    let mut line = Vec::new();
    for row in 1.. {
        line.clear();
        let read = (&mut reader)
            .take(ROW_BYTES + 1)
            .read_until(b'\n', &mut line);
        if read.map_err(EvalError::io(rows.path.as_ref()))? == 0 {
            break;
        }
        if line.len() as u64 > ROW_BYTES {
            return Err(rows.too_long(row));
        }
        let line = std::str::from_utf8(&line);
        let line = line
            .map_err(|_| rows.wrong(row, "not UTF-8".to_owned()))?
            .trim();
        if line.is_empty() {
            continue;
        }
        let value = serde_json::from_str(line)
            .map_err(|error| rows.wrong(row, format!("not JSON: {error}")))?;
        rows.push(row, value)?;
    }
    Ok(())
}

/// `.json` is an array of objects, or JSON Lines by another name.
fn json(rows: &mut Rows, mut reader: impl BufRead) -> Result<(), EvalError> {
    loop {
        let available = reader
            .fill_buf()
            .map_err(EvalError::io(rows.path.as_ref()))?;
        match available
            .iter()
            .position(|byte| !byte.is_ascii_whitespace())
        {
            Some(at) if available[at] == b'[' => break,
            Some(_) => return json_lines(rows, reader),
            None if available.is_empty() => return Ok(()),
            None => {
                let blank = available.len();
                reader.consume(blank);
            }
        }
    }
    let left = std::cell::Cell::new(ROW_BYTES);
    let reader = BufReader::new(Bounded {
        inner: reader,
        left: &left,
    });
    let mut failed = None;
    let mut json = serde_json::Deserializer::from_reader(reader);
    let elements = Elements {
        rows,
        left: &left,
        failed: &mut failed,
    };
    let found = elements.deserialize(&mut json).and_then(|()| json.end());
    match (failed, found) {
        (Some(error), _) => Err(error),
        (None, Err(_)) if left.get() == 0 => Err(rows.too_long(rows.rows.len() + 1)),
        (None, found) => found.map_err(|error| unreadable(&rows.path, "JSON", &error)),
    }
}

/// Ends with an error when nothing is left; whoever reads a row sets it anew.
struct Bounded<'a, R> {
    inner: R,
    left: &'a std::cell::Cell<u64>,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left.get() == 0 {
            return Err(io::Error::other("the row is too long"));
        }
        let most = buffer.len().min(self.left.get() as usize);
        let read = self.inner.read(&mut buffer[..most])?;
        self.left.set(self.left.get() - read as u64);
        Ok(read)
    }
}

/// The elements of an array, one at a time.
struct Elements<'a> {
    rows: &'a mut Rows,
    left: &'a std::cell::Cell<u64>,
    failed: &'a mut Option<EvalError>,
}

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while let Some(value) = array.next_element::<Json>()? {
            self.left.set(ROW_BYTES);
            if let Err(error) = self.rows.push(self.rows.rows.len() + 1, value) {
                *self.failed = Some(error);
                return Err(serde::de::Error::custom("the row cannot be used"));
            }
        }
        Ok(())
    }
}

fn parquet(rows: &mut Rows, file: File) -> Result<(), EvalError> {
    let path = Arc::clone(&rows.path);
    let size = parquet_size(&path, &Limits::default(), rows.allowed);
    let size = size.map_err(|error| match error {
        DataError::Parquet { message, .. } => unreadable(&path, PARQUET, &message),
        DataError::TooLarge { .. } => rows.too_large(),
        other => other.into(),
    })?;
    let at_once = size.rows.saturating_mul(BATCH_BYTES) / size.bytes.max(1);
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .map(|builder| builder.with_batch_size(at_once.clamp(1, 1024) as usize))
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(|error| unreadable(&path, PARQUET, &error))?;
    batches(rows, PARQUET, reader)
}

fn arrow(rows: &mut Rows, mut file: File) -> Result<(), EvalError> {
    let path = Arc::clone(&rows.path);
    let failed = |error: &dyn std::fmt::Display| unreadable(&path, ARROW, error);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .map_err(EvalError::io(path.as_ref()))?;
    arrow_lengths::check(&bytes, rows.allowed).map_err(|error| failed(&error))?;
    if bytes.starts_with(arrow_lengths::FILE) {
        let reader = FileReader::try_new(Cursor::new(bytes), None);
        batches(rows, ARROW, reader.map_err(|error| failed(&error))?)
    } else {
        let reader = StreamReader::try_new(Cursor::new(bytes), None);
        batches(rows, ARROW, reader.map_err(|error| failed(&error))?)
    }
}

fn batches(
    rows: &mut Rows,
    format: &'static str,
    reader: impl RecordBatchReader,
) -> Result<(), EvalError> {
    let path = Arc::clone(&rows.path);
    for batch in reader {
        let batch = batch.map_err(|error| unreadable(&path, format, &error))?;
        let mut lines = Lines {
            rows: &mut *rows,
            line: Vec::new(),
            failed: None,
        };
        let written = write(&batch, &mut lines);
        if let Some(error) = lines.failed {
            return Err(error);
        }
        written.map_err(|message| unreadable(&path, format, &message))?;
    }
    Ok(())
}

fn write(batch: &RecordBatch, lines: &mut Lines<'_>) -> Result<(), String> {
    let mut writer = LineDelimitedWriter::new(lines);
    let written = writer.write(batch).and_then(|()| writer.finish());
    written.map_err(|error| error.to_string())
}

/// Parses JSON Lines while they are written to it, one row at a time.
struct Lines<'a> {
    rows: &'a mut Rows,
    /// The row that is not complete yet.
    line: Vec<u8>,
    failed: Option<EvalError>,
}

impl Lines<'_> {
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), EvalError> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let row = self.rows.rows.len() + 1;
            let value = serde_json::from_slice(&self.line);
            self.rows.push(
                row,
                value.map_err(|error| self.rows.wrong(row, error.to_string()))?,
            )?;
            self.line.clear();
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }
}

impl Write for Lines<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.take(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.failed = Some(error);
                Err(io::Error::other("the row cannot be used"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn unreadable(path: &Path, format: &'static str, error: &dyn std::fmt::Display) -> EvalError {
    EvalError::Unreadable {
        path: path.to_owned(),
        format,
        message: error.to_string(),
    }
}
