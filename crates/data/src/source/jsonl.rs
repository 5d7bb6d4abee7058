//! Reads JSON Lines, with a document in the text field of each object.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor as JsonVisitor};

use super::decompress::read_error;
use super::lines::{Line, Lines};
use super::{Item, Reading, Visitor};
use crate::error::{BadRecord, DataError, Problem};

/// Limits on the number and length of field names listed if the text field is missing.
const FIELDS_LISTED: usize = 20;
const NAME_LISTED: usize = 60;

/// Emits the text of every line; blank lines are skipped.
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
    let mut lines = Lines::open(item, reading)?;
    let mut buffer = Vec::new();
    let mut records = 0_u64;
    loop {
        let found = match lines.next(&mut buffer) {
            Ok(found) => found,
            Err(error) => return visitor.bad(read_error(item, lines.count, error)?),
        };
        let line = Some(lines.count);
        match found {
            Line::Whole => {}
            Line::TooLong => {
                records += 1;
                visitor.bad(bad(line, too_long(reading)))?;
                continue;
            }
            Line::End => break,
        }
        // A line end within a value would be reported as a truncated value.
        let bytes = buffer.trim_ascii_end();
        if bytes.is_empty() {
            continue;
        }
        records += 1;
        give(bytes, reading, visitor, |problem| bad(line, problem))?;
    }
    match records {
        0 => visitor.bad(bad(None, Problem::EmptyFile)),
        _ => Ok(()),
    }
}

/// Emits the text of an object, or its problem.
pub(super) fn give(
    object: &[u8],
    reading: &Reading,
    visitor: &mut dyn Visitor,
    bad: impl FnOnce(Problem) -> BadRecord,
) -> Result<(), DataError> {
    let texts = match texts_of(object, &reading.fields) {
        Ok(texts) => texts,
        Err(problem) => return visitor.bad(bad(problem)),
    };
    match reading.checked(texts.iter().map(AsRef::as_ref).collect()) {
        Ok(texts) => super::give(&texts, visitor),
        Err(problem) => visitor.bad(bad(problem)),
    }
}

/// The problem of a record that exceeds the limit.
pub(super) fn too_long(reading: &Reading) -> Problem {
    Problem::OverLimit {
        what: "a record",
        key: "data.limits.record_bytes",
        allowed: reading.limits.record_bytes,
        unit: "bytes",
    }
}

/// Names for a message, limited in number and length.
pub(super) fn listed(names: impl Iterator<Item = impl AsRef<str>>) -> String {
    let short = |name: &str| match name.char_indices().nth(NAME_LISTED) {
        Some((end, _)) => format!("{}..", &name[..end]),
        None => name.to_owned(),
    };
    let mut names: Vec<String> = names
        .take(FIELDS_LISTED + 1)
        .map(|name| short(name.as_ref()))
        .collect();
    if names.len() > FIELDS_LISTED {
        names[FIELDS_LISTED] = "..".to_owned();
    }
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    }
}

/// The texts of one line, in the order of the fields.
fn texts_of<'a>(line: &'a [u8], fields: &[String]) -> Result<Vec<Cow<'a, str>>, Problem> {
    let line = std::str::from_utf8(line).map_err(|error| Problem::NotUtf8 {
        offset: error.valid_up_to() as u64,
        of: "line",
    })?;
    let mut json = serde_json::Deserializer::from_str(line);
    let found = TextFields(fields)
        .deserialize(&mut json)
        .and_then(|found| json.end().map(|()| found));
    let found = found.map_err(|error| match error.is_data() {
        true => Problem::WrongType {
            what: "the line".to_owned(),
            found: kind_of(line),
            expected: "a JSON object",
        },
        false => Problem::NotJson {
            column: error.column(),
            message: without_place(&error),
        },
    })?;
    let others = found.others;
    let texts = found.values.into_iter().zip(fields);
    texts
        .map(|(value, field)| match value {
            Some(Value::Text(text)) => Ok(text),
            Some(Value::Other(found)) => Err(Problem::WrongType {
                what: format!("the field \"{field}\""),
                found,
                expected: "a string",
            }),
            None => Err(Problem::MissingField {
                field: field.to_owned(),
                found: listed(others.iter()),
            }),
        })
        .collect()
}

/// The error's text without its " at line 1 column 7", because the line is known.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// Describes the kind of a JSON value that is not an object.
fn kind_of(line: &str) -> String {
    match line.trim_start().as_bytes().first() {
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
    .to_owned()
}

/// The values of the requested fields.
struct Found<'a> {
    /// In the order of the fields; `None` if a field is missing.
    values: Vec<Option<Value<'a>>>,
    /// The names of other fields.
    others: Vec<String>,
}

enum Value<'a> {
    Text(Cow<'a, str>),
    /// A value of another type, described.
    Other(String),
}

/// Extracts some fields of an object and skips the others without storing them.
struct TextFields<'f>(&'f [String]);

impl<'de> DeserializeSeed<'de> for TextFields<'_> {
    type Value = Found<'de>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Found<'de>, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> JsonVisitor<'de> for TextFields<'_> {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Found<'de>, M::Error> {
        let mut values: Vec<Option<Value<'de>>> = self.0.iter().map(|_| None).collect();
        let mut others = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if let Some(at) = self.0.iter().position(|field| *field == key) {
                values[at] = Some(map.next_value_seed(TextValue)?);
            } else {
                map.next_value::<IgnoredAny>()?;
                if others.len() <= FIELDS_LISTED {
                    others.push(key);
                }
            }
        }
        Ok(Found { values, others })
    }
}

struct TextValue;

impl<'de> DeserializeSeed<'de> for TextValue {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Value<'de>, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> JsonVisitor<'de> for TextValue {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text)))
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Other("null".to_owned()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value<'de>, E> {
        Ok(Value::Other("a boolean".to_owned()))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value<'de>, E> {
        Ok(Value::Other("a number".to_owned()))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value<'de>, E> {
        Ok(Value::Other("a number".to_owned()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value<'de>, E> {
        Ok(Value::Other("a number".to_owned()))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Value<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other("an array".to_owned()))
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Value<'de>, M::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other("an object".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::decompress::tests::{gzip, zstd};
    use crate::source::tests::collect;

    const TWO: &[u8] =
        b"{\"id\": 1, \"text\": \"a\\nb\"}\r\n\n  \n{\"text\":\"c\",\"m\":{\"text\":1}}";

    #[test]
    fn every_line_is_a_document() {
        for (name, bytes) in [
            ("a.jsonl", TWO.to_vec()),
            ("a.jsonl.gz", gzip(TWO)),
            ("a.jsonl.zst", zstd(TWO)),
            ("a.jsonl", [b"\xef\xbb\xbf", TWO].concat()),
        ] {
            let got = collect(name, &bytes);
            assert_eq!(got.documents, ["a\nb", "c"], "{name}");
            assert!(got.bad.is_empty());
        }
    }

    #[test]
    fn errors_contain_the_line() {
        let lines: &[&[u8]] = &[
            b"{\"text\": \"ok\"}",
            b"{\"text\": \"cut",
            b"{\"body\": \"x\", \"id\": 3}",
            b"{\"text\": [1, 2]}",
            b"[1]",
            b"{\"text\": \"\"}",
            b"{\"text\": \"\xff\"}",
            b"{\"text\": \"a\"} trailing",
            b"{}",
        ];
        let got = collect("a.jsonl", &lines.join(&b'\n'));
        assert_eq!(got.documents, ["ok"]);
        let message: Vec<String> = got
            .bad
            .iter()
            .map(|bad| format!("{} {}", bad.line.unwrap(), bad.problem))
            .collect();
        assert_eq!(
            message,
            [
                "2 not JSON, column 13: EOF while parsing a string",
                "3 no field \"text\"; the fields here are: body, id",
                "4 the field \"text\" is an array, expected a string",
                "5 the line is an array, expected a JSON object",
                "6 the text is empty",
                "7 not UTF-8 at byte 10 of the line",
                "8 not JSON, column 15: trailing characters",
                "9 no field \"text\"; the fields here are: none",
            ]
        );
    }

    #[test]
    fn complete_lines_of_a_truncated_stream_are_read() {
        let text: String = (0..20_000)
            .map(|i| format!("{{\"text\": \"{}\"}}\n", i * 7919))
            .collect();
        let bytes = gzip(text.as_bytes());
        let got = collect("a.jsonl.gz", &bytes[..bytes.len() / 2]);
        let kept = got.documents.len() as u64;
        assert!(kept > 1000, "{kept}");
        assert_eq!(got.bad.len(), 1);
        assert_eq!(got.bad[0].problem, Problem::Truncated { lines: kept });
    }

    #[test]
    fn prompts_and_completions_are_read_from_two_fields() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let lines =
            "{\"a\": \"four\", \"q\": \"2+2\"}\n{\"q\": \"3+3\"}\n{\"q\": \"1\", \"a\": 2}\n";
        std::fs::write(&path, lines).unwrap();
        let item = &crate::source::find(&[&path], None).unwrap()[0];
        let reading = Reading {
            fields: vec!["q".to_owned(), "a".to_owned()],
            kind: crate::token_file::DocumentKind::Prompts,
            ..Reading::of_field("")
        };
        let mut got = crate::source::tests::Collect::default();
        read(item, &reading, &mut got).unwrap();
        assert_eq!(got.documents, ["2+2|four"]);
        let message: Vec<String> = got.bad.iter().map(|bad| bad.problem.to_string()).collect();
        assert_eq!(
            message,
            [
                "no field \"a\"; the fields here are: none",
                "the field \"a\" is a number, expected a string"
            ]
        );
    }

    #[test]
    fn a_line_exceeding_the_limit_is_reported_and_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let long = format!("{{\"text\": \"{}\"}}\n", "x".repeat(1 << 20));
        let short = "{\"text\": \"a\"}\n";
        std::fs::write(&path, [short, &long, short, &long].concat()).unwrap();
        let item = &crate::source::find(&[&path], None).unwrap()[0];
        let mut reading = Reading::of_field("text");
        reading.limits.record_bytes = 1000;
        let mut got = crate::source::tests::Collect::default();
        read(item, &reading, &mut got).unwrap();
        assert_eq!(got.documents, ["a", "a"]);
        let lines: Vec<_> = got.bad.iter().map(|bad| bad.line.unwrap()).collect();
        assert_eq!(lines, [2, 4]);
        let message = got.bad[0].problem.to_string();
        assert!(
            message.contains("data.limits.record_bytes = 1000"),
            "{message}"
        );
    }

    #[test]
    fn a_file_of_blank_lines_is_empty() {
        assert_eq!(
            collect("a.jsonl", b"\n \n").bad[0].problem,
            Problem::EmptyFile
        );
    }
}
