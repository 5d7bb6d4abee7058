//! Rows of a column of byte strings, with nulls.

use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArray, ByteArrayType};

use super::step;

/// Some rows of a column.
pub(super) struct Values {
    /// Those that are not null.
    values: std::vec::IntoIter<ByteArray>,
    /// Whether each row has a value.
    levels: Vec<bool>,
}

impl Values {
    /// Reads up to so many rows.
    pub fn read(column: &mut ColumnReaderImpl<ByteArrayType>, rows: usize) -> Result<Self, String> {
        let (mut values, mut levels) = (Vec::<ByteArray>::new(), Vec::<i16>::new());
        let read = step(|| column.read_records(rows, Some(&mut levels), None, &mut values));
        let (records, _, _) = read?;
        let nulls_possible = values.len() < records;
        let has_value = |at| !nulls_possible || levels.get(at).is_some_and(|&level| level != 0);
        Ok(Self {
            levels: (0..records).map(has_value).collect(),
            values: values.into_iter(),
        })
    }

    /// The number of rows, 0 after the last.
    pub fn rows(&self) -> usize {
        self.levels.len()
    }

    /// The value of a row; the rows must be taken in order.
    pub fn take(&mut self, row: usize) -> Option<ByteArray> {
        match self.levels[row] {
            true => self.values.next(),
            false => None,
        }
    }
}
