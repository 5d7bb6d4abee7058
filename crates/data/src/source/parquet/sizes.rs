//! The decoded size of the rows of a Parquet file, computed in bounded memory.
//!
//! A few bytes can represent any number of rows with long texts: repetitions are run-length encoded, and
//! values refer to a dictionary. Readers that build whole rows call this first.

use std::path::Path;

use iiet_files::open_regular;
use parquet::column::reader::ColumnReader;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::{open_column, pages, step};
use crate::config::Limits;
use crate::error::DataError;

/// Values decoded at a time.
const VALUES: usize = 1024;
/// Size of a value with its levels, without the text that it refers to.
const DECODED_BYTES: u64 = 40;

/// The number of rows of a Parquet file and the size of all their values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParquetSize {
    /// Number of rows.
    pub rows: u64,
    /// Bytes of the values of all columns; a number counts as 8.
    pub bytes: u64,
}

/// Sums the sizes of the values of all columns, and stops when they exceed `most` bytes.
///
/// # Errors
/// [`DataError::TooLarge`] above `most`; [`DataError::Parquet`] for a file that cannot be read or has a page
/// larger than [`Limits::page_bytes`].
pub fn parquet_size(path: &Path, limits: &Limits, most: u64) -> Result<ParquetSize, DataError> {
    let invalid = |message: String| DataError::Parquet {
        path: path.to_path_buf(),
        message,
    };
    let file = open_regular(path).map_err(DataError::io(path))?;
    let length = file.metadata().map_err(DataError::io(path))?.len();
    let allowed = limits.page_bytes_of(length);
    let pages_of = file.try_clone().map_err(DataError::io(path))?;
    let reader = step(|| SerializedFileReader::new(file)).map_err(invalid)?;
    let metadata = reader.metadata();
    let mut size = ParquetSize {
        rows: u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0),
        bytes: 0,
    };
    for group in 0..metadata.num_row_groups() {
        for column in 0..metadata.row_group(group).num_columns() {
            let chunk = metadata.row_group(group).column(column);
            let found = step(|| Ok(pages::survey(&pages_of, chunk, allowed)));
            let found = found.and_then(|found| found).map_err(invalid)?;
            let is_repeated = chunk.column_descr().max_rep_level() > 0;
            // A row's values are decoded together, whatever their number.
            let at_once = found.values.saturating_mul(DECODED_BYTES);
            if is_repeated && at_once > most {
                return Err(too_large(at_once, most));
            }
            let values = if found.prefixed { 1 } else { VALUES };
            let mut column = step(|| open_column(&reader, group, column)).map_err(invalid)?;
            loop {
                let read = step(|| decode(&mut column, values)).map_err(invalid)?;
                let Some(bytes) = read else { break };
                size.bytes = size.bytes.saturating_add(bytes);
                if size.bytes > most {
                    return Err(too_large(size.bytes, most));
                }
            }
        }
    }
    Ok(size)
}

fn too_large(found: u64, allowed: u64) -> DataError {
    DataError::TooLarge {
        what: "the bytes of a Parquet file's values",
        found,
        allowed,
    }
}

/// The size of the next values, in bytes; `None` at the end.
fn decode(column: &mut ColumnReader, values: usize) -> Result<Option<u64>, ParquetError> {
    /// Levels are counted for nulls too.
    const LEVEL_BYTES: u64 = 2;
    let (mut definitions, mut repetitions) = (Vec::new(), Vec::new());
    macro_rules! read {
        ($column:expr, $bytes:expr) => {{
            let mut decoded = Vec::new();
            let levels = (&mut definitions, &mut repetitions);
            let column = $column;
            let (records, _, read) =
                column.read_records(values, Some(levels.0), Some(levels.1), &mut decoded)?;
            let bytes: u64 = decoded.iter().map($bytes).sum();
            (records, read as u64 * LEVEL_BYTES + bytes)
        }};
    }
    let (records, bytes) = match column {
        ColumnReader::BoolColumnReader(column) => read!(column, |_| 8),
        ColumnReader::Int32ColumnReader(column) => read!(column, |_| 8),
        ColumnReader::Int64ColumnReader(column) => read!(column, |_| 8),
        ColumnReader::Int96ColumnReader(column) => read!(column, |_| 16),
        ColumnReader::FloatColumnReader(column) => read!(column, |_| 8),
        ColumnReader::DoubleColumnReader(column) => read!(column, |_| 8),
        ColumnReader::ByteArrayColumnReader(column) => read!(column, |v| 8 + v.len() as u64),
        ColumnReader::FixedLenByteArrayColumnReader(column) => {
            read!(column, |v| 8 + v.len() as u64)
        }
    };
    Ok((records > 0).then_some(bytes))
}
