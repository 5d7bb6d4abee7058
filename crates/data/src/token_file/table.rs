//! The table of documents at the end of a token file.

use std::ops::Range;

use super::TokenFile;
use super::header::{HEADER_BYTES, damaged, u64_of};
use crate::error::DataError;

/// A row of the document table.
pub(super) struct Row {
    /// The document's first token.
    pub(super) start: u64,
    pub(super) text_bytes: u64,
    pub(super) prompt_tokens: u64,
}

impl Row {
    /// Parses 16 bytes, or 24 in a file of pairs.
    fn of(row: &[u8]) -> Self {
        let number = |at: usize| row.get(at..at + 8).map_or(0, u64_of);
        Self {
            start: number(0),
            text_bytes: number(8),
            prompt_tokens: number(16),
        }
    }
}

impl TokenFile {
    pub(super) fn document_row(&self, index: usize) -> Result<Row, DataError> {
        if index >= self.documents() {
            return Err(DataError::OutOfRange {
                what: "documents",
                start: index as u64,
                end: (index as u64).saturating_add(1),
                len: self.header.documents,
            });
        }
        self.check_unchanged()?;
        let mut row = [0; 24];
        let row = &mut row[..self.header.row_bytes()];
        self.opened.read_exact(
            self.table_offset() + (index * self.header.row_bytes()) as u64,
            row,
        )?;
        Ok(Row::of(row))
    }

    fn table_offset(&self) -> u64 {
        HEADER_BYTES as u64 + self.header.tokens * self.header.width as u64
    }

    pub(super) fn check_documents(&self) -> Result<(), DataError> {
        let damaged = |what, found: u64, expected: String| {
            Err(damaged(self.path(), what, found.to_string(), expected))
        };
        let (mut text_bytes, mut least, mut prompt) = (0_u64, 0, 0);
        self.rows(&mut |row| {
            let in_order = match least {
                0 => row.start == 0,
                _ => row.start >= least,
            };
            if !in_order || row.start >= self.len() {
                let expected = match least {
                    0 => "0".to_owned(),
                    _ => format!("{least} to {}", self.len()),
                };
                return damaged("the first token of a document", row.start, expected);
            }
            // A source has at least its end.
            if row.prompt_tokens == 0 && self.has_sources() {
                let expected = "at least 1".to_owned();
                return damaged("the number of a source's tokens", 0, expected);
            }
            // A document has at least one token, and a pair at least one after its prompt.
            least = row
                .start
                .saturating_add(row.prompt_tokens)
                .saturating_add(1);
            prompt = row.prompt_tokens;
            text_bytes = text_bytes.saturating_add(row.text_bytes);
            Ok(())
        })?;
        if least > self.len() {
            let expected = "fewer than the document has".to_owned();
            return damaged("the number of a prompt's tokens", prompt, expected);
        }
        if text_bytes != self.text_bytes() {
            let what = "the sum of the documents' text bytes";
            return damaged(what, text_bytes, self.text_bytes().to_string());
        }
        Ok(())
    }

    /// The tokens of each document in turn and the number of those of its prompt or source, with the table
    /// read in blocks.
    pub(crate) fn each_document(
        &self,
        visit: &mut dyn FnMut(Range<u64>, u64) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        self.check_unchanged()?;
        let mut before: Option<Row> = None;
        self.rows(&mut |row| {
            let end = row.start;
            match before.replace(row) {
                Some(before) => visit(before.start..end.max(before.start), before.prompt_tokens),
                None => Ok(()),
            }
        })?;
        match before {
            Some(last) => visit(last.start..self.len().max(last.start), last.prompt_tokens),
            None => Ok(()),
        }
    }

    /// The document table in order.
    fn rows(&self, visit: &mut dyn FnMut(Row) -> Result<(), DataError>) -> Result<(), DataError> {
        const ROWS: u64 = 1 << 13;
        let documents = self.header.documents;
        let row_bytes = self.header.row_bytes();
        let mut block = vec![0; documents.min(ROWS) as usize * row_bytes];
        for first in (0..documents).step_by(ROWS as usize) {
            let rows = (documents - first).min(ROWS) as usize;
            let block = &mut block[..rows * row_bytes];
            let offset = self.table_offset() + first * row_bytes as u64;
            self.opened.read_exact(offset, block)?;
            for row in block.chunks(row_bytes) {
                visit(Row::of(row))?;
            }
        }
        Ok(())
    }
}
