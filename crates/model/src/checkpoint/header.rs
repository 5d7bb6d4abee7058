//! Parsing of safetensors headers from untrusted files.
//!
//! The `safetensors` crate checks that the tensors cover the data without holes or overlaps and
//! that shapes do not overflow. This module first checks what the crate accepts: duplicate keys (it
//! keeps the last), unknown fields, offsets near 2^64. No memory is allocated for sizes that a
//! header declares, only for its text, so memory is bounded by the size of the file.

use std::io::{self, Read};
use std::path::Path;

use iiet_files::{SafetensorsEntry, SafetensorsHeader};
use safetensors::SafeTensors;

use crate::ModelError;

/// The tensors of a safetensors file; `path` is used in messages.
///
/// # Errors
///
/// [`ModelError::Header`] or [`ModelError::Safetensors`].
pub fn parse_safetensors<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>, ModelError> {
    read_header(&mut &bytes[..], bytes.len() as u64).map_err(|reason| ModelError::Header {
        path: path.to_owned(),
        reason,
    })?;
    SafeTensors::deserialize(bytes).map_err(|source| ModelError::Safetensors {
        path: path.to_owned(),
        source,
    })
}

/// Reads the header at the beginning of a file of so many bytes. What follows it in `file` is the data.
pub(super) fn read_header(file: &mut impl Read, bytes: u64) -> Result<SafetensorsHeader, String> {
    let text = |error: io::Error| error.to_string();
    let least = SafetensorsHeader::LENGTH;
    let Some(rest) = bytes.checked_sub(least as u64) else {
        return Err(format!("{bytes} bytes; at least {least}"));
    };
    let mut length = [0; SafetensorsHeader::LENGTH];
    file.read_exact(&mut length).map_err(text)?;
    let length = u64::from_le_bytes(length);
    if length > SafetensorsHeader::LIMIT {
        let limit = SafetensorsHeader::LIMIT;
        return Err(format!(
            "the header's length is {length}; allowed: at most {limit}"
        ));
    }
    let Some(data) = rest.checked_sub(length) else {
        return Err(format!(
            "the header's length is {length}, but {rest} bytes follow"
        ));
    };
    // The limit fits into 32 bits.
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(text)?;
    let header = SafetensorsHeader::parse(&header).map_err(|e| e.to_string())?;
    for (name, SafetensorsEntry { data_offsets, .. }) in &header.tensors {
        let end = data_offsets.1;
        if end > data {
            return Err(format!("{name} ends at byte {end}, but the data at {data}"));
        }
    }
    Ok(header)
}
