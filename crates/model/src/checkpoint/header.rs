//! Parsing of safetensors headers from untrusted files.
//!
//! The `safetensors` crate checks that the tensors cover the data without holes or overlaps and
//! that shapes do not overflow. This module first checks what the crate accepts: duplicate keys (it
//! keeps the last), unknown fields, offsets near 2^64. No memory is allocated for sizes that a
//! header declares, only for its text, so memory is bounded by the size of the file.

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
    let Some((length, rest)) = bytes.split_first_chunk::<{ SafetensorsHeader::LENGTH }>() else {
        let (found, least) = (bytes.len(), SafetensorsHeader::LENGTH);
        return Err(format!("{found} bytes; at least {least}"));
    };
    let length = u64::from_le_bytes(*length);
    if length > SafetensorsHeader::LIMIT {
        let limit = SafetensorsHeader::LIMIT;
        return Err(format!(
            "the header's length is {length}; allowed: at most {limit}"
        ));
    }
    // The limit fits into 32 bits.
    let Some((header, data)) = rest.split_at_checked(length as usize) else {
        let left = rest.len();
        return Err(format!(
            "the header's length is {length}, but {left} bytes follow"
        ));
    };
    let header = SafetensorsHeader::parse(header).map_err(|e| e.to_string())?;
    for (name, SafetensorsEntry { data_offsets, .. }) in header.tensors {
        if data_offsets.1 > data.len() as u64 {
            let [end, len] = [data_offsets.1, data.len() as u64];
            return Err(format!("{name} ends at byte {end}, but the data at {len}"));
        }
    }
    Ok(())
}
