//! Writing a GGUF file, of version 3 and little-endian, with one tensor in memory at a time.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::Path;

use iiet_files::{FileRecord, write_file};

use crate::GgufError;
use crate::metadata::{Array, Metadata, Value};
use crate::reader::MAGIC;
use crate::tensors::{TensorInfo, aligned};

/// The version that is written.
const VERSION: u32 = 3;

/// Writes a file atomically and returns its length and hash.
///
/// `bytes` gives the bytes of each of the `tensors` in turn, by its index. Offsets in `tensors` are not looked
/// at: tensors are written in their order.
///
/// # Errors
///
/// [`GgufError::Io`], the errors of `bytes`, and those of [`write_gguf_to`].
pub fn write_gguf(
    path: &Path,
    metadata: &Metadata,
    tensors: &[TensorInfo],
    bytes: impl FnMut(usize) -> Result<Vec<u8>, GgufError>,
) -> Result<FileRecord, GgufError> {
    let mut refused = None;
    let written = write_file(path, |file| {
        write_gguf_to(file, path, metadata, tensors, bytes).map_err(|error| match error {
            GgufError::Io { source, .. } => source,
            other => {
                let message = other.to_string();
                refused = Some(other);
                io::Error::other(message)
            }
        })
    });
    match refused {
        Some(error) => Err(error),
        None => written.map_err(GgufError::io(path)),
    }
}

/// Writes the same to any writer; `path` is used in messages.
///
/// # Errors
///
/// Those of `bytes`, [`GgufError::Io`] of the writer, and [`GgufError::Tensor`] for tensors of one name and for
/// bytes of another length than the tensor's.
pub fn write_gguf_to(
    out: &mut impl Write,
    path: &Path,
    metadata: &Metadata,
    tensors: &[TensorInfo],
    mut bytes: impl FnMut(usize) -> Result<Vec<u8>, GgufError>,
) -> Result<(), GgufError> {
    let alignment = metadata.alignment()?;
    let refuse = |name: &str, reason: String| GgufError::Tensor {
        path: path.to_owned(),
        name: name.to_owned(),
        reason,
    };
    let mut header = Vec::new();
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    put_length(&mut header, tensors.len());
    put_length(&mut header, metadata.iter().len());
    for (key, value) in metadata.iter() {
        put_string(&mut header, key);
        put_value(&mut header, value);
    }
    let (mut known, mut offset) = (HashSet::new(), 0u64);
    for tensor in tensors {
        if !known.insert(tensor.name.as_str()) {
            return Err(refuse(&tensor.name, "for the second time".into()));
        }
        put_string(&mut header, &tensor.name);
        header.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
        for size in tensor.shape.iter().rev() {
            header.extend_from_slice(&size.to_le_bytes());
        }
        header.extend_from_slice(&tensor.kind.number().to_le_bytes());
        header.extend_from_slice(&offset.to_le_bytes());
        let next = offset.checked_add(tensor.bytes);
        offset = next
            .and_then(|end| aligned(end, alignment))
            .ok_or_else(|| refuse(&tensor.name, "ends after byte 2^64".into()))?;
    }
    let io = |result: io::Result<()>| result.map_err(GgufError::io(path));
    let pad = |length: usize| vec![0; length.next_multiple_of(alignment as usize) - length];
    io(out.write_all(&header))?;
    io(out.write_all(&pad(header.len())))?;
    for (i, tensor) in tensors.iter().enumerate() {
        let data = bytes(i)?;
        if data.len() as u64 != tensor.bytes {
            let reason = format!("{} bytes; allowed: {}", data.len(), tensor.bytes);
            return Err(refuse(&tensor.name, reason));
        }
        io(out.write_all(&data))?;
        io(out.write_all(&pad(data.len())))?;
    }
    Ok(())
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&(length as u64).to_le_bytes());
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    put_length(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// The number of a value's type, then the value.
fn put_value(out: &mut Vec<u8>, value: &Value) {
    let mut put = |kind: u32, bytes: &[u8]| {
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(bytes);
    };
    match value {
        Value::U8(x) => put(0, &x.to_le_bytes()),
        Value::I8(x) => put(1, &x.to_le_bytes()),
        Value::U16(x) => put(2, &x.to_le_bytes()),
        Value::I16(x) => put(3, &x.to_le_bytes()),
        Value::U32(x) => put(4, &x.to_le_bytes()),
        Value::I32(x) => put(5, &x.to_le_bytes()),
        Value::F32(x) => put(6, &x.to_le_bytes()),
        Value::Bool(x) => put(7, &[u8::from(*x)]),
        Value::String(text) => {
            put(8, &[]);
            put_string(out, text);
        }
        Value::Array(array) => {
            put(9, &[]);
            put_array(out, array);
        }
        Value::U64(x) => put(10, &x.to_le_bytes()),
        Value::I64(x) => put(11, &x.to_le_bytes()),
        Value::F64(x) => put(12, &x.to_le_bytes()),
    }
}

/// The number of the elements' type, their number, then the elements.
fn put_array(out: &mut Vec<u8>, array: &Array) {
    fn put<const N: usize, T: Copy>(
        out: &mut Vec<u8>,
        kind: u32,
        elements: &[T],
        bytes: impl Fn(T) -> [u8; N],
    ) {
        out.extend_from_slice(&kind.to_le_bytes());
        put_length(out, elements.len());
        out.extend(elements.iter().flat_map(|x| bytes(*x)));
    }
    match array {
        Array::U8(all) => put(out, 0, all, u8::to_le_bytes),
        Array::I8(all) => put(out, 1, all, i8::to_le_bytes),
        Array::U16(all) => put(out, 2, all, u16::to_le_bytes),
        Array::I16(all) => put(out, 3, all, i16::to_le_bytes),
        Array::U32(all) => put(out, 4, all, u32::to_le_bytes),
        Array::I32(all) => put(out, 5, all, i32::to_le_bytes),
        Array::F32(all) => put(out, 6, all, f32::to_le_bytes),
        Array::Bool(all) => put(out, 7, all, |x| [u8::from(x)]),
        Array::U64(all) => put(out, 10, all, u64::to_le_bytes),
        Array::I64(all) => put(out, 11, all, i64::to_le_bytes),
        Array::F64(all) => put(out, 12, all, f64::to_le_bytes),
        Array::String(all) => {
            out.extend_from_slice(&8u32.to_le_bytes());
            put_length(out, all.len());
            all.iter().for_each(|text| put_string(out, text));
        }
        Array::Array(all) => {
            out.extend_from_slice(&9u32.to_le_bytes());
            put_length(out, all.len());
            all.iter().for_each(|array| put_array(out, array));
        }
    }
}
