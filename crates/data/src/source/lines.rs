//! Reads a file line by line, with a limit on the length of a line.

use std::io::{self, BufRead, Read};

use super::decompress::open;
use super::{Item, Reading};
use crate::error::DataError;

/// The lines of a file, which end with `\n` or the file.
pub(super) struct Lines {
    source: Box<dyn BufRead>,
    /// Limit on the bytes of a line, including its end.
    most: u64,
    /// The number of lines read.
    pub count: u64,
}

/// The result of reading a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The line is in the buffer, with its end.
    Whole,
    /// The line exceeds the limit and was skipped.
    TooLong,
    /// There are no more lines.
    End,
}

impl Lines {
    pub fn open(item: &Item, reading: &Reading) -> Result<Self, DataError> {
        Ok(Self {
            source: open(item, &reading.limits)?,
            most: reading.limits.record_bytes,
            count: 0,
        })
    }

    /// Reads the next line into the buffer; a byte order mark before the first is left out.
    pub fn next(&mut self, buffer: &mut Vec<u8>) -> io::Result<Line> {
        buffer.clear();
        let mut limited = (&mut *self.source).take(self.most + 1);
        if limited.read_until(b'\n', buffer)? == 0 {
            return Ok(Line::End);
        }
        let is_too_long = buffer.len() as u64 > self.most;
        if is_too_long && !buffer.ends_with(b"\n") {
            self.source.skip_until(b'\n')?;
        }
        self.count += 1;
        if is_too_long {
            return Ok(Line::TooLong);
        }
        if self.count == 1 && buffer.starts_with(b"\xef\xbb\xbf") {
            buffer.drain(..3);
        }
        Ok(Line::Whole)
    }

    /// Counts the remaining lines.
    pub fn skip_all(&mut self) -> io::Result<()> {
        while self.source.skip_until(b'\n')? > 0 {
            self.count += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::source::Format;

    #[test]
    fn lines_are_counted_and_limited() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, b"\xef\xbb\xbfab\r\n\n12345678\n1234567\n12345\nlast").unwrap();
        let item = crate::source::find(&[&path], None).unwrap().remove(0);
        assert_eq!(item.format, Format::Text);
        let limits = Limits {
            record_bytes: 7,
            ..Limits::default()
        };
        let reading = Reading {
            limits,
            ..Reading::of_field("")
        };
        let mut lines = Lines::open(&item, &reading).unwrap();
        let mut buffer = Vec::new();
        for expected in [&b"ab\r\n"[..], b"\n"] {
            assert_eq!(lines.next(&mut buffer).unwrap(), Line::Whole);
            assert_eq!(buffer, expected);
        }
        // Of eight bytes, and of seven with an end.
        for _ in 0..2 {
            assert_eq!(lines.next(&mut buffer).unwrap(), Line::TooLong);
        }
        assert_eq!(lines.next(&mut buffer).unwrap(), Line::Whole);
        assert_eq!(buffer, b"12345\n");
        lines.skip_all().unwrap();
        assert_eq!(lines.count, 6);
        assert_eq!(lines.next(&mut buffer).unwrap(), Line::End);
    }
}
