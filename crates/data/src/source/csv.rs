//! Reads a column of a CSV or TSV file, one document per row.
//!
//! The first row contains the column names. Fields are quoted as in RFC 4180, also in TSV.

use std::io::{self, Read};

use super::decompress::{open, over_limit, read_error};
use super::{Item, Reading, Visitor, give, jsonl};
use crate::error::{BadRecord, DataError, Problem};

/// The reader's buffer size in bytes.
const AHEAD_BYTES: u64 = 64 << 10;

/// Emits the text of every row.
pub(crate) fn read(
    item: &Item,
    delimiter: u8,
    reading: &Reading,
    visitor: &mut dyn Visitor,
) -> Result<(), DataError> {
    let bad = |row, problem| BadRecord {
        path: item.path.clone(),
        line: row,
        problem,
    };
    let most = reading.limits.record_bytes.saturating_add(AHEAD_BYTES);
    let source = Rows {
        source: open(item, &reading.limits)?,
        left: most,
        over: jsonl::too_long(reading),
    };
    let mut rows = ::csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        .flexible(true)
        .buffer_capacity(AHEAD_BYTES as usize)
        .from_reader(source);
    let mut fields = ::csv::ByteRecord::new();
    let mut columns = None;
    let mut row = 0;
    loop {
        rows.get_mut().left = most;
        match rows.read_byte_record(&mut fields) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                let error = match error.into_kind() {
                    ::csv::ErrorKind::Io(error) => error,
                    other => io::Error::other(format!("{other:?}")),
                };
                let record = read_error(item, row, error)?;
                return visitor.bad(BadRecord {
                    line: Some(row + 1),
                    ..record
                });
            }
        }
        let Some((indices, count)) = &columns else {
            let found = reading.fields.iter().map(|field| column(&fields, field));
            match found.collect::<Result<Vec<usize>, _>>() {
                Ok(indices) => columns = Some((indices, fields.len())),
                Err(problem) => return visitor.bad(bad(None, problem)),
            }
            continue;
        };
        row += 1;
        let found = match fields.len() == *count {
            true => indices
                .iter()
                .map(|index| text_of(&fields[*index]))
                .collect(),
            false => Err(Problem::NotCsv {
                message: format!("{} fields, the header has {count}", fields.len()),
            }),
        };
        let found: Result<Vec<&str>, Problem> = found;
        match found.and_then(|texts| reading.checked(texts)) {
            Ok(texts) => give(&texts, visitor)?,
            Err(problem) => visitor.bad(bad(Some(row), problem))?,
        }
    }
    match row {
        0 => visitor.bad(bad(None, Problem::EmptyFile)),
        _ => Ok(()),
    }
}

fn column(header: &::csv::ByteRecord, field: &str) -> Result<usize, Problem> {
    let names = || {
        header.iter().enumerate().map(|(at, name)| match at {
            0 => name.strip_prefix(b"\xef\xbb\xbf").unwrap_or(name),
            _ => name,
        })
    };
    let found = names().position(|name| name == field.as_bytes());
    found.ok_or_else(|| {
        let names = names().map(String::from_utf8_lossy);
        Problem::MissingField {
            field: field.to_owned(),
            found: jsonl::listed(names),
        }
    })
}

fn text_of(text: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(text).map_err(|error| Problem::NotUtf8 {
        offset: error.valid_up_to() as u64,
        of: "field",
    })
}

/// Returns an error if a row exceeds the limit.
struct Rows<R> {
    source: R,
    /// Remaining bytes for the current row.
    left: u64,
    over: Problem,
}

impl<R: Read> Read for Rows<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(over_limit(self.over.clone()));
        }
        let most = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.source.read(&mut buffer[..most])?;
        self.left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::source::tests::{Collect, collect};
    use crate::token_file::DocumentKind;

    #[test]
    fn every_row_is_a_document() {
        let text = b"\xef\xbb\xbftext,id\r\n\"a, \"\"b\"\"\n\",1\r\nc,2\n";
        assert_eq!(collect("a.csv", text).documents, ["a, \"b\"\n", "c"]);
        let tsv = b"id\ttext\n1\ta, b\n2\tc\n";
        assert_eq!(collect("a.tsv", tsv).documents, ["a, b", "c"]);
        let gz = crate::source::decompress::tests::gzip(tsv);
        assert_eq!(collect("a.tsv.gz", &gz).documents, ["a, b", "c"]);
    }

    #[test]
    fn errors_contain_the_row() {
        let got = collect("a.csv", b"id,text\n1\n2,b\n3,\n4,\xff\n5,e,f\n");
        assert_eq!(got.documents, ["b"]);
        let message: Vec<String> = got
            .bad
            .iter()
            .map(|bad| format!("{} {}", bad.line.unwrap(), bad.problem))
            .collect();
        assert_eq!(
            message,
            [
                "1 not CSV: 1 fields, the header has 2",
                "3 the text is empty",
                "4 not UTF-8 at byte 0 of the field",
                "5 not CSV: 3 fields, the header has 2",
            ]
        );
        let message = collect("a.csv", b"id,body\n1,a\n").bad[0].to_string();
        assert!(
            message.contains("no field \"text\"; the fields here are: id, body"),
            "{message}"
        );
        assert_eq!(
            collect("a.csv", b"id,text\n").bad[0].problem,
            Problem::EmptyFile
        );
        assert_eq!(collect("a.csv", b"").bad[0].problem, Problem::EmptyFile);
    }

    #[test]
    fn prompts_and_completions_are_read_from_two_columns() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, "answer,id,question\n4,1,2+2\n").unwrap();
        let item = &crate::source::find(&[&path], None).unwrap()[0];
        let reading = Reading {
            fields: vec!["question".to_owned(), "answer".to_owned()],
            kind: DocumentKind::Prompts,
            ..Reading::of_field("")
        };
        let mut got = Collect::default();
        crate::source::read(item, &reading, &mut got).unwrap();
        assert_eq!(got.documents, ["2+2|4"]);
    }

    #[test]
    fn an_unclosed_quote_is_limited() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let open = [b"text\n\"".to_vec(), vec![b'x'; 1 << 20]].concat();
        std::fs::write(&path, open).unwrap();
        let item = &crate::source::find(&[&path], None).unwrap()[0];
        let limits = Limits {
            record_bytes: 1000,
            ..Limits::default()
        };
        let reading = Reading {
            limits,
            ..Reading::of_field("text")
        };
        let mut got = Collect::default();
        crate::source::read(item, &reading, &mut got).unwrap();
        let message = got.bad[0].to_string();
        assert!(
            message.contains("a record of more than 1000 bytes"),
            "{message}"
        );
        assert!(message.contains("data.limits.record_bytes"), "{message}");
    }
}
