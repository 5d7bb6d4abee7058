//! Reading the parts of a header from an untrusted source.
//!
//! A length or count is compared with the bytes that are left before memory is taken for it, so memory is
//! bounded by the size of the file, and by [`MAX_HEADER`] where the file is large.

use std::io::{self, Read};
use std::path::Path;

use crate::GgufError;
use crate::metadata::{Array, MAX_KEY, Value};

/// The longest header, in bytes; the same limit as safetensors has. Vocabularies of 256 Ki tokens take 20 MB.
pub(crate) const MAX_HEADER: u64 = 100_000_000;
/// Arrays of arrays are read to this depth.
pub(crate) const MAX_DEPTH: usize = 4;
/// The smallest string: its length.
const MIN_STRING: u64 = 8;
/// The smallest array: its type and length.
const MIN_ARRAY: u64 = 12;

/// A header that is being read.
pub(crate) struct Source<'a, R> {
    path: &'a Path,
    bytes: R,
    at: u64,
    /// Where the header ends at the latest.
    end: u64,
}

impl<'a, R: Read> Source<'a, R> {
    /// `length` is that of the whole file; `path` is used in messages.
    pub(crate) fn new(path: &'a Path, bytes: R, length: u64) -> Self {
        Self {
            path,
            bytes,
            at: 0,
            end: length.min(MAX_HEADER),
        }
    }

    /// Bytes that have been read.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    pub(crate) fn left(&self) -> u64 {
        self.end - self.at
    }

    pub(crate) fn refuse<T>(&self, reason: String) -> Result<T, GgufError> {
        Err(GgufError::Header {
            path: self.path.to_owned(),
            at: self.at,
            reason,
        })
    }

    /// Checks that `count` things of at least `size` bytes each can follow.
    pub(crate) fn check(&self, what: &str, count: u64, size: u64) -> Result<(), GgufError> {
        let left = self.left();
        match count.checked_mul(size) {
            Some(bytes) if bytes <= left => Ok(()),
            _ => self.refuse(format!(
                "{count} {what} of at least {size} bytes each; at most {left} bytes can follow"
            )),
        }
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        self.check("value", 1, N as u64)?;
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    /// A string of at most `longest` bytes.
    pub(crate) fn string(&mut self, what: &str, longest: u64) -> Result<String, GgufError> {
        let length = self.u64()?;
        if length > longest {
            return self.refuse(format!(
                "{what} of {length} bytes; allowed: at most {longest}"
            ));
        }
        self.check("bytes", length, 1)?;
        let bytes = self.many(length, 1)?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                self.refuse(format!(
                    "{what} of {length} bytes is not UTF-8 after its first {valid}; allowed: UTF-8"
                ))
            }
        }
    }

    /// A key of the metadata.
    pub(crate) fn key(&mut self) -> Result<String, GgufError> {
        let key = self.string("a key", MAX_KEY)?;
        match key.is_empty() {
            true => self.refuse(format!("a key of 0 bytes; allowed: 1 to {MAX_KEY}")),
            false => Ok(key),
        }
    }

    /// A value with the number of its type before it.
    pub(crate) fn value(&mut self) -> Result<Value, GgufError> {
        Ok(match self.u32()? {
            0 => Value::U8(u8::from_le_bytes(self.bytes()?)),
            1 => Value::I8(i8::from_le_bytes(self.bytes()?)),
            2 => Value::U16(u16::from_le_bytes(self.bytes()?)),
            3 => Value::I16(i16::from_le_bytes(self.bytes()?)),
            4 => Value::U32(u32::from_le_bytes(self.bytes()?)),
            5 => Value::I32(i32::from_le_bytes(self.bytes()?)),
            6 => Value::F32(f32::from_le_bytes(self.bytes()?)),
            7 => {
                let [byte] = self.bytes()?;
                Value::Bool(self.truth(byte)?)
            }
            8 => Value::String(self.string("a string", MAX_HEADER)?),
            9 => Value::Array(self.array(1)?),
            10 => Value::U64(u64::from_le_bytes(self.bytes()?)),
            11 => Value::I64(i64::from_le_bytes(self.bytes()?)),
            12 => Value::F64(f64::from_le_bytes(self.bytes()?)),
            other => return self.unknown_type(other),
        })
    }

    /// An array; `depth` is how many arrays it is in, itself included.
    fn array(&mut self, depth: usize) -> Result<Array, GgufError> {
        if depth > MAX_DEPTH {
            return self.refuse(format!(
                "arrays nested {depth} deep; allowed: at most {MAX_DEPTH}"
            ));
        }
        let (kind, count) = (self.u32()?, self.u64()?);
        Ok(match kind {
            0 => Array::U8(self.many(count, 1)?),
            1 => Array::I8(self.scalars(count, i8::from_le_bytes)?),
            2 => Array::U16(self.scalars(count, u16::from_le_bytes)?),
            3 => Array::I16(self.scalars(count, i16::from_le_bytes)?),
            4 => Array::U32(self.scalars(count, u32::from_le_bytes)?),
            5 => Array::I32(self.scalars(count, i32::from_le_bytes)?),
            6 => Array::F32(self.scalars(count, f32::from_le_bytes)?),
            7 => {
                let bytes = self.many(count, 1)?;
                let truths: Result<_, _> = bytes.into_iter().map(|b| self.truth(b)).collect();
                Array::Bool(truths?)
            }
            8 => {
                self.check("strings", count, MIN_STRING)?;
                let strings = (0..count).map(|_| self.string("a string", MAX_HEADER));
                Array::String(strings.collect::<Result<_, _>>()?)
            }
            9 => {
                self.check("arrays", count, MIN_ARRAY)?;
                let arrays = (0..count).map(|_| self.array(depth + 1));
                Array::Array(arrays.collect::<Result<_, _>>()?)
            }
            10 => Array::U64(self.scalars(count, u64::from_le_bytes)?),
            11 => Array::I64(self.scalars(count, i64::from_le_bytes)?),
            12 => Array::F64(self.scalars(count, f64::from_le_bytes)?),
            other => return self.unknown_type(other),
        })
    }

    fn unknown_type<T>(&self, found: u32) -> Result<T, GgufError> {
        self.refuse(format!("value type {found}; allowed: 0 to 12"))
    }

    fn truth(&self, byte: u8) -> Result<bool, GgufError> {
        match byte {
            0 => Ok(false),
            1 => Ok(true),
            other => self.refuse(format!("a bool of {other}; allowed: 0 and 1")),
        }
    }

    fn scalars<const N: usize, T>(
        &mut self,
        count: u64,
        read: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, GgufError> {
        let bytes = self.many(count, N as u64)?;
        let (elements, _) = bytes.as_chunks::<N>();
        Ok(elements.iter().map(|element| read(*element)).collect())
    }

    fn many(&mut self, count: u64, size: u64) -> Result<Vec<u8>, GgufError> {
        self.check("elements", count, size)?;
        // At most MAX_HEADER, which fits into 32 bits.
        let mut bytes = vec![0; (count * size) as usize];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), GgufError> {
        match self.bytes.read_exact(bytes) {
            Ok(()) => {
                self.at += bytes.len() as u64;
                Ok(())
            }
            // The file was shortened while it was read.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.refuse("the file ends here".into())
            }
            Err(error) => Err(GgufError::io(self.path)(error)),
        }
    }
}
