//! Reads a `.json` file: an array of objects, each with a document in its text field, or JSON Lines
//! with this extension.
//!
//! An array is split into its elements by counting brackets outside of strings, with one element in
//! memory at a time; each is then parsed like a line of JSON Lines.

use std::io::{self, BufRead};

use super::decompress::{open, read_error};
use super::jsonl::{self, give};
use super::{Item, Reading, Visitor};
use crate::error::{BadRecord, DataError, Problem};

/// Emits the text of every element, or of every line if the file is not an array.
pub(crate) fn read(
    item: &Item,
    reading: &Reading,
    visitor: &mut dyn Visitor,
) -> Result<(), DataError> {
    let mut elements = Elements {
        source: open(item, &reading.limits)?,
        most: reading.limits.record_bytes,
        after_comma: false,
    };
    let bad = |line, problem| BadRecord {
        path: item.path.clone(),
        line,
        problem,
    };
    match elements.begin() {
        Ok(Beginning::Array) => {}
        Ok(Beginning::Object) => return jsonl::read(item, reading, visitor),
        Ok(Beginning::Nothing) => return visitor.bad(bad(None, Problem::EmptyFile)),
        Ok(Beginning::Other(found)) => {
            let found = format!("the file begins with {:?}", char::from(found));
            let expected = "an array of objects, or one object per line";
            return visitor.bad(bad(None, Problem::NotRecords { found, expected }));
        }
        Err(error) => return visitor.bad(read_error(item, 0, error)?),
    }
    let mut element = Vec::new();
    let mut row = 0;
    loop {
        row += 1;
        match elements.next(&mut element) {
            Ok(Next::Element) => give(&element, reading, visitor, |problem| {
                bad(Some(row), problem)
            })?,
            Ok(Next::TooLong) => visitor.bad(bad(Some(row), jsonl::too_long(reading)))?,
            Ok(Next::End) if row == 1 => return visitor.bad(bad(None, Problem::EmptyFile)),
            Ok(Next::End) => return Ok(()),
            Ok(Next::Invalid(message)) => {
                let message = message.to_owned();
                let problem = Problem::NotJson { column: 0, message };
                return visitor.bad(bad(Some(row), problem));
            }
            Err(error) => return visitor.bad(read_error(item, row - 1, error)?),
        }
    }
}

enum Beginning {
    Array,
    Object,
    Nothing,
    Other(u8),
}

enum Next {
    Element,
    /// An element that exceeded the limit and was skipped.
    TooLong,
    End,
    Invalid(&'static str),
}

/// The elements of an array.
struct Elements {
    source: Box<dyn BufRead>,
    most: u64,
    /// Whether a comma was read, which must be followed by an element.
    after_comma: bool,
}

impl Elements {
    /// Reads the opening bracket of an array.
    fn begin(&mut self) -> io::Result<Beginning> {
        if self.source.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
            self.source.consume(3);
        }
        Ok(match self.peek()? {
            Some(b'[') => {
                self.source.consume(1);
                Beginning::Array
            }
            Some(b'{') => Beginning::Object,
            Some(other) => Beginning::Other(other),
            None => Beginning::Nothing,
        })
    }

    /// Reads the next element and the comma or bracket after it.
    fn next(&mut self, element: &mut Vec<u8>) -> io::Result<Next> {
        element.clear();
        let (mut depth, mut in_string, mut escaped) = (0_u64, false, false);
        let mut bytes = 0_u64;
        match self.peek()? {
            Some(b']') if self.after_comma => {
                return Ok(Next::Invalid("no element after the comma"));
            }
            Some(b']') => return self.end(),
            None => return Ok(Next::Invalid("the array is not closed")),
            Some(_) => {}
        }
        loop {
            let available = fill(&mut *self.source)?;
            if available.is_empty() {
                return Ok(Next::Invalid("the array is not closed"));
            }
            let mut end = None;
            for (at, byte) in available.iter().enumerate() {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' if in_string => escaped = true,
                    b'"' => in_string = !in_string,
                    _ if in_string => {}
                    b'[' | b'{' => depth += 1,
                    b',' | b']' if depth == 0 => {
                        end = Some((at, *byte));
                        break;
                    }
                    b']' | b'}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
            let taken = end.map_or(available.len(), |(at, _)| at);
            bytes += taken as u64;
            if bytes <= self.most {
                element.extend_from_slice(&available[..taken]);
            }
            match end {
                None => self.source.consume(taken),
                Some((_, byte)) => {
                    // The next call reads the closing bracket.
                    self.after_comma = byte == b',';
                    self.source.consume(taken + usize::from(self.after_comma));
                    return Ok(match bytes <= self.most {
                        true => Next::Element,
                        false => Next::TooLong,
                    });
                }
            }
        }
    }

    /// Reads the closing bracket, which must be the last.
    fn end(&mut self) -> io::Result<Next> {
        self.source.consume(1);
        Ok(match self.peek()? {
            None => Next::End,
            Some(_) => Next::Invalid("data after the end of the array"),
        })
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> io::Result<Option<u8>> {
        loop {
            let available = fill(&mut *self.source)?;
            match available
                .iter()
                .position(|byte| !byte.is_ascii_whitespace())
            {
                Some(at) => {
                    let byte = available[at];
                    self.source.consume(at);
                    return Ok(Some(byte));
                }
                None if available.is_empty() => return Ok(None),
                None => {
                    let length = available.len();
                    self.source.consume(length);
                }
            }
        }
    }
}

fn fill(source: &mut dyn BufRead) -> io::Result<&[u8]> {
    loop {
        match source.fill_buf() {
            Ok(_) => return source.fill_buf(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::source::tests::collect;

    #[test]
    fn every_element_of_an_array_is_a_document() {
        let text = br#" [ {"id": [1, {"text": "]"}], "text": "a, \"]} \\"},
            {"text": "b"},{"text":"c" } ]
        "#;
        assert_eq!(collect("a.json", text).documents, ["a, \"]} \\", "b", "c"]);
        let lines = b"{\"text\": \"a\"}\n{\"text\": \"b\"}\n";
        assert_eq!(collect("a.json", lines).documents, ["a", "b"]);
    }

    #[test]
    fn errors_contain_the_row() {
        for (text, row, expected) in [
            (
                &br#"[{"text": "a"}, 3]"#[..],
                Some(2),
                "is a number, expected a JSON object",
            ),
            (br#"[{"text": "a"}, ]"#, Some(2), "not JSON"),
            (br#"[{"text": "a"} {"text": "b"}]"#, Some(1), "trailing"),
            (
                br#"[{"text": "a"}, {"text": "#,
                Some(2),
                "the array is not closed",
            ),
            (
                br#"[{"text": "a"}] x"#,
                Some(2),
                "data after the end of the array",
            ),
            (b"[]", None, "the file is empty"),
            (b" ", None, "the file is empty"),
            (
                b"text",
                None,
                "begins with 't', expected an array of objects",
            ),
        ] {
            let got = collect("a.json", text);
            assert_eq!(got.bad.len(), 1, "{expected}: {:?}", got.bad);
            assert_eq!(got.bad[0].line, row, "{expected}");
            let said = got.bad[0].problem.to_string();
            assert!(said.contains(expected), "{said}");
        }
    }
}
