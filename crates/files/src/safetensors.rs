//! Headers of safetensors files from untrusted sources.
//!
//! The format is the length of the header (u64), the header in JSON, and the bytes of the tensors. Other parsers keep
//! the last of duplicate keys and ignore unknown fields; here both are errors. No memory is taken for sizes that
//! a header declares, only for its text.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

/// A header's structure, with unique names. Shapes and offsets are as the file gives them, unchecked.
#[derive(Debug, Clone, PartialEq)]
pub struct SafetensorsHeader {
    /// The tensors by name, in the header's order.
    pub tensors: Vec<(String, SafetensorsEntry)>,
}

/// A tensor's entry in a header.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SafetensorsEntry {
    /// The name of the type, such as `BF16`.
    pub dtype: String,
    /// The shape.
    pub shape: Vec<u64>,
    /// The first byte after the header, and one past the last.
    pub data_offsets: (u64, u64),
}

impl SafetensorsHeader {
    /// The format's own limit of a header, in bytes.
    pub const LIMIT: u64 = 100_000_000;
    /// Bytes of the length before the header.
    pub const LENGTH: usize = 8;

    /// Parses the text of a header.
    ///
    /// # Errors
    ///
    /// For text that is not such a header, with the line and column.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }
}

impl<'de> Deserialize<'de> for SafetensorsHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = SafetensorsHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SafetensorsHeader, A::Error> {
        let (mut names, mut tensors) = (BTreeSet::new(), Vec::new());
        while let Some(name) = map.next_key::<String>()? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format!("duplicate key {name:?}")));
            }
            match name.as_str() {
                "__metadata__" => map.next_value::<Texts>().map(drop)?,
                _ => tensors.push((name, map.next_value()?)),
            }
        }
        Ok(SafetensorsHeader { tensors })
    }
}

/// `__metadata__`: strings by name.
struct Texts;

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TextsVisitor)
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
        let mut names = BTreeSet::new();
        while let Some((name, _)) = map.next_entry::<String, String>()? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format!("duplicate key {name:?}")));
            }
        }
        Ok(Texts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_its_tensors_and_nothing_else() {
        let text = r#"{"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}"#;
        let entry = SafetensorsEntry {
            dtype: "F32".into(),
            shape: vec![1],
            data_offsets: (0, 4),
        };
        let header = SafetensorsHeader::parse(text.as_bytes()).unwrap();
        assert_eq!(header.tensors, [("a".into(), entry)]);
        for (from, to, expected) in [
            ("__metadata__", "a", "unknown field `format`"),
            ("pt\"", "pt\", \"format\": \"\"", "duplicate key \"format\""),
            ("\"pt\"", "1", "expected a string"),
            ("\"shape\"", "\"size\"", "unknown field `size`"),
            ("[1]", "[-1]", "expected u64"),
        ] {
            let error = SafetensorsHeader::parse(text.replace(from, to).as_bytes()).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
