//! Parsing of safetensors headers from untrusted files.
//!
//! The `safetensors` crate checks that the tensors cover the data without holes or overlaps and
//! that shapes do not overflow. This module first checks what the crate accepts: duplicate keys (it
//! keeps the last), unknown fields, offsets near 2^64. No memory is allocated for sizes that a
//! header declares, only for its text, so memory is bounded by the size of the file.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use safetensors::SafeTensors;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::ModelError;

/// The format's own limit.
const MAX_HEADER: u64 = 100_000_000;
/// The header is preceded by its length in this many bytes.
const LENGTH: usize = 8;

/// The tensors of a safetensors file; `path` is used in messages.
///
/// # Errors
///
/// [`ModelError::Header`] or [`ModelError::Safetensors`].
pub fn parse_safetensors<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>, ModelError> {
    check_header(bytes).map_err(|reason| ModelError::Header {
        path: path.to_owned(),
        reason,
    })?;
    SafeTensors::deserialize(bytes).map_err(|source| ModelError::Safetensors {
        path: path.to_owned(),
        source,
    })
}

fn check_header(bytes: &[u8]) -> Result<(), String> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH>() else {
        return Err(format!("{} bytes; at least {LENGTH}", bytes.len()));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER {
        return Err(format!(
            "the header's length is {length}; allowed: at most {MAX_HEADER}"
        ));
    }
    // The limit fits into 32 bits.
    let Some((header, data)) = rest.split_at_checked(length as usize) else {
        let left = rest.len();
        return Err(format!(
            "the header's length is {length}, but {left} bytes follow"
        ));
    };
    let Header(tensors) = serde_json::from_slice(header).map_err(|e| e.to_string())?;
    for (name, Tensor { data_offsets, .. }) in tensors {
        if data_offsets.1 > data.len() as u64 {
            let [end, len] = [data_offsets.1, data.len() as u64];
            return Err(format!("{name} ends at byte {end}, but the data at {len}"));
        }
    }
    Ok(())
}

/// The header's structure, with unique names.
struct Header(Vec<(String, Tensor)>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "parsed only to check the format")]
struct Tensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// `__metadata__`: strings by name.
struct Texts;

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
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
        Ok(Header(tensors))
    }
}

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
