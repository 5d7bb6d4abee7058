//! Checks of the lengths in an Arrow IPC file, before memory is allocated for them.
//!
//! `arrow-ipc` allocates the sizes that a footer and compressed buffers declare without checks, and aborts
//! the process if there is not enough memory. So the file is checked first: every part that a length refers
//! to must be within the file, and the decompressed size of buffers must be in proportion to the file.
//!
//! A message is a length, metadata that contains the length of its body, and the body. The stream format is a
//! sequence of messages; the file format has a footer with the position of each
//! (<https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc>).

use arrow_ipc::reader::read_footer_length;
use arrow_ipc::{Message, MessageHeader, RecordBatch, root_as_footer, root_as_message};

/// The first bytes of the file format; the stream format starts differently.
pub(super) const FILE: &[u8] = b"ARROW1";
/// The marker before a message's length, since version 0.15 of the format.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// Checks that every length in a file is valid, and that compressed buffers expand to at most the given size.
///
/// # Errors
/// A description of the problem.
pub(super) fn check(bytes: &[u8], most: u64) -> Result<(), String> {
    let mut left = most;
    match bytes.starts_with(FILE) {
        true => check_file(bytes, &mut left),
        false => check_stream(bytes, &mut left),
    }
}

fn check_file(bytes: &[u8], left: &mut u64) -> Result<(), String> {
    let (before, tail) = bytes.split_last_chunk().ok_or("it has no footer")?;
    let length = read_footer_length(*tail).map_err(|error| error.to_string())?;
    let footer = before.len().checked_sub(length).map(|from| &before[from..]);
    let footer = footer.ok_or_else(|| {
        format!(
            "a footer of {length} bytes, but the file has only {}",
            before.len()
        )
    })?;
    let footer = root_as_footer(footer).map_err(|error| format!("its footer: {error}"))?;
    let dictionaries = footer.dictionaries().into_iter().flatten();
    let batches = footer.recordBatches().into_iter().flatten();
    for block in dictionaries.chain(batches) {
        let metadata = i64::from(block.metaDataLength());
        let start = block.offset().saturating_add(metadata);
        let body = part(bytes, start, block.bodyLength())?;
        let metadata = part(bytes, block.offset(), metadata)?;
        // The repeated length, after the continuation marker or without one.
        let metadata = metadata.strip_prefix(&CONTINUATION).unwrap_or(metadata);
        check_message(message(metadata.get(4..).unwrap_or_default())?, body, left)?;
    }
    Ok(())
}

fn check_stream(mut bytes: &[u8], left: &mut u64) -> Result<(), String> {
    loop {
        bytes = bytes.strip_prefix(&CONTINUATION).unwrap_or(bytes);
        let Some((length, rest)) = bytes.split_first_chunk() else {
            return Ok(());
        };
        let length = i32::from_le_bytes(*length);
        if length == 0 {
            return Ok(());
        }
        let metadata = part(rest, 0, length.into())?;
        let rest = &rest[metadata.len()..];
        let message = message(metadata)?;
        let body = part(rest, 0, message.bodyLength())?;
        check_message(message, body, left)?;
        bytes = &rest[body.len()..];
    }
}

fn message(metadata: &[u8]) -> Result<Message<'_>, String> {
    root_as_message(metadata).map_err(|error| format!("a message's metadata: {error}"))
}

fn check_message(message: Message<'_>, body: &[u8], left: &mut u64) -> Result<(), String> {
    let batch = match message.header_type() {
        MessageHeader::RecordBatch => message.header_as_record_batch(),
        MessageHeader::DictionaryBatch => message
            .header_as_dictionary_batch()
            .and_then(|dictionary| dictionary.data()),
        _ => None,
    };
    batch.map_or(Ok(()), |batch| check_buffers(batch, body, left))
}

fn check_buffers(batch: RecordBatch<'_>, body: &[u8], left: &mut u64) -> Result<(), String> {
    for buffer in batch.buffers().into_iter().flatten() {
        let buffer = part(body, buffer.offset(), buffer.length())?;
        if batch.compression().is_none() || buffer.is_empty() {
            continue;
        }
        let length = buffer
            .first_chunk()
            .ok_or("a compressed buffer without its length")?;
        // -1 means uncompressed; other negative numbers are rejected when the file is read.
        let Ok(length) = u64::try_from(i64::from_le_bytes(*length)) else {
            continue;
        };
        // Reading allocates this size and cannot recover from a failure.
        *left = left.checked_sub(length).ok_or_else(|| {
            format!(
                "a buffer of {} bytes that decompresses to {length}; allowed: {left} more, or 4 times the file's size and 256 MiB in all",
                buffer.len()
            )
        })?;
    }
    Ok(())
}

/// A part of a file, given by its declared range.
fn part(bytes: &[u8], start: i64, length: i64) -> Result<&[u8], String> {
    let range = || {
        let start = usize::try_from(start).ok()?;
        let end = start.checked_add(usize::try_from(length).ok()?)?;
        bytes.get(start..end)
    };
    range().ok_or_else(|| {
        format!(
            "a part of {length} bytes from byte {start}, but the file has only {}",
            bytes.len()
        )
    })
}
