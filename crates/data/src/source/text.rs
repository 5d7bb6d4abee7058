//! Reads a file as one document of text.

use std::io::BufRead;

use super::decompress::{open, read_error};
use super::pieces::{PIECE_BYTES, cut};
use super::{Item, Reading, Visitor};
use crate::error::{BadRecord, DataError, Problem};

/// Streams the file in pieces; invalid UTF-8 or an empty file is an invalid record.
pub(crate) fn read(
    item: &Item,
    reading: &Reading,
    visitor: &mut dyn Visitor,
) -> Result<(), DataError> {
    let bad = |line, problem| BadRecord {
        path: item.path.clone(),
        line,
        problem,
    };
    let mut source = open(item, &reading.limits)?;
    let mut pending: Vec<u8> = Vec::new();
    let (mut offset, mut lines) = (0, 0);
    loop {
        let at_end = match fill(&mut *source, &mut pending) {
            Ok(at_end) => at_end,
            Err(error) => {
                let whole = lines + count_lines(&pending);
                return visitor.bad(read_error(item, whole, error)?);
            }
        };
        let valid = match std::str::from_utf8(&pending) {
            Ok(text) => text,
            // A character may be split by the buffer's end, but not by the file's.
            Err(error) if error.error_len().is_none() && !at_end => {
                std::str::from_utf8(&pending[..error.valid_up_to()])
                    .expect("invariant: valid up to this byte")
            }
            Err(error) => {
                let good = &pending[..error.valid_up_to()];
                let offset = offset + good.len() as u64;
                let of = "file";
                let line = Some(lines + count_lines(good) + 1);
                return visitor.bad(bad(line, Problem::NotUtf8 { offset, of }));
            }
        };
        let mut done = 0;
        while valid.len() - done > PIECE_BYTES || (at_end && done < valid.len()) {
            let piece = &valid[done..][..cut(&valid[done..])];
            visitor.piece(piece)?;
            lines += count_lines(piece.as_bytes());
            done += piece.len();
        }
        offset += done as u64;
        pending.drain(..done);
        if at_end {
            if offset == 0 {
                return visitor.bad(bad(None, Problem::EmptyFile));
            }
            return visitor.end();
        }
    }
}

/// Fills `pending` with up to two pieces; returns true at the end of the file.
///
/// More than one piece and a character must be available before splitting, so that the split
/// depends on the text and not on the size of a read.
fn fill(source: &mut dyn BufRead, pending: &mut Vec<u8>) -> std::io::Result<bool> {
    while pending.len() < 2 * PIECE_BYTES {
        let available = match source.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() {
            return Ok(true);
        }
        let taken = available.len();
        pending.extend_from_slice(available);
        source.consume(taken);
    }
    Ok(false)
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::pieces::pieces;
    use crate::source::tests::{Collect, collect};

    #[test]
    fn a_file_is_one_document() {
        assert_eq!(collect("a.txt", b"a\r\nb\n").documents, ["a\r\nb\n"]);
    }

    #[test]
    fn long_files_are_split_like_text_in_memory() {
        struct Lengths(Vec<usize>);
        impl Visitor for Lengths {
            fn piece(&mut self, text: &str) -> Result<(), DataError> {
                self.0.push(text.len());
                Ok(())
            }
            fn end_prompt(&mut self) -> Result<(), DataError> {
                Ok(())
            }
            fn end(&mut self) -> Result<(), DataError> {
                Ok(())
            }
            fn bad(&mut self, record: BadRecord) -> Result<(), DataError> {
                Err(DataError::Bad(record))
            }
        }
        let text: String = (0..200_000).map(|i| format!("line {i} é\n")).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long.txt");
        std::fs::write(&path, &text).unwrap();
        let item = &crate::source::find(&[&path], None).unwrap()[0];
        let mut lengths = Lengths(Vec::new());
        read(item, &Reading::of_field("text"), &mut lengths).unwrap();
        let expected: Vec<usize> = pieces(&text).map(str::len).collect();
        assert!(expected.len() > 8);
        assert_eq!(lengths.0, expected);
    }

    #[test]
    fn invalid_utf8_is_reported_with_line_and_byte() {
        let got = collect("a.txt", b"fine\nfine\nb\xffd\n");
        assert!(got.documents.is_empty());
        assert_eq!(got.bad[0].line, Some(3));
        let problem = Problem::NotUtf8 {
            offset: 11,
            of: "file",
        };
        assert_eq!(got.bad[0].problem, problem);
        // A character that is truncated by the end of the file.
        let got = collect("a.txt", "é".as_bytes().split_last().unwrap().1);
        let problem = Problem::NotUtf8 {
            offset: 0,
            of: "file",
        };
        assert_eq!(got.bad[0].problem, problem);
    }

    #[test]
    fn an_empty_file_is_an_invalid_record() {
        assert_eq!(collect("a.txt", b"").bad[0].problem, Problem::EmptyFile);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("empty.txt");
        std::fs::write(&path, "").unwrap();
        let item = &crate::source::find(&[&path], None).unwrap()[0];
        let mut stop = Collect {
            stop: true,
            ..Collect::default()
        };
        let error = read(item, &Reading::of_field("text"), &mut stop)
            .unwrap_err()
            .to_string();
        assert!(error.contains("empty.txt: the file is empty"), "{error}");
    }
}
