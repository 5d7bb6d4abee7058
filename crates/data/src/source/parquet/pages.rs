//! The sizes of a column's pages, read before memory is allocated for them.
//!
//! The `parquet` crate allocates memory for the decompressed size that a page's header declares, and
//! decompresses gzip without limit. So the headers are read first, in Thrift's compact protocol
//! (<https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>), as far as they
//! contain sizes; other fields are skipped.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use parquet::basic::Compression;
use parquet::file::metadata::ColumnChunkMetaData;

use crate::read_at::read_at;

/// Maximum nesting of structs in a header; the format has three levels.
const MAX_DEPTH: usize = 16;
/// `Encoding.DELTA_BYTE_ARRAY`.
const DELTA_BYTE_ARRAY: i64 = 7;

/// Properties of the pages of a column chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pages {
    /// The size of the largest page after decompression, in bytes.
    pub largest: u64,
    /// The number of values, including nulls.
    pub values: u64,
    /// Whether values share prefixes, so that a page contains more text than bytes.
    pub prefixed: bool,
}

/// Reads the header of every page of a column chunk.
///
/// # Errors
/// A description of a page that is not within the chunk or decompresses to more than `allowed` bytes.
pub(super) fn survey(
    file: &File,
    chunk: &ColumnChunkMetaData,
    allowed: u64,
) -> Result<Pages, String> {
    let start = chunk
        .dictionary_page_offset()
        .unwrap_or_else(|| chunk.data_page_offset());
    let (Ok(mut at), Ok(length)) = (u64::try_from(start), u64::try_from(chunk.compressed_size()))
    else {
        return Err("a column that begins or ends before the file".to_owned());
    };
    let end = at.saturating_add(length);
    let compressed = chunk.compression() != Compression::UNCOMPRESSED;
    let mut pages = Pages::default();
    while at < end {
        let within = Part { file, at, end };
        let mut source = Counted {
            inner: BufReader::with_capacity(1024, within),
            taken: 0,
        };
        let header = header(&mut source).map_err(|error| format!("a page's header: {error}"))?;
        let [size, stored] = [header.size, header.stored];
        let body = at + source.taken;
        let next = stored.and_then(|stored| body.checked_add(stored.try_into().ok()?));
        let (Some(size), Some(next)) = (size.and_then(|size| u64::try_from(size).ok()), next)
        else {
            return Err("a page without its sizes".to_owned());
        };
        if next > end {
            return Err(format!(
                "a page that ends at byte {next}, after its column's end {end}"
            ));
        }
        if compressed {
            if size > allowed {
                return Err(too_large(size, allowed));
            }
            if matches!(chunk.compression(), Compression::GZIP(_)) && header.is_compressed {
                let levels = u64::try_from(header.levels).unwrap_or(0);
                let part = Part {
                    file,
                    at: body.saturating_add(levels),
                    end: next,
                };
                let mut gzip = MultiGzDecoder::new(BufReader::new(part)).take(size + 1);
                let found = io::copy(&mut gzip, &mut io::sink())
                    .map_err(|error| format!("a page's gzip stream: {error}"))?;
                if found > size {
                    return Err(format!(
                        "a page that decompresses to more than its {size} bytes"
                    ));
                }
            }
        }
        pages.largest = pages.largest.max(size);
        let values = header.values.map_or(0, |values| values.max(0) as u64);
        pages.values = pages.values.saturating_add(values);
        pages.prefixed |= header.encoding == Some(DELTA_BYTE_ARRAY);
        at = next;
    }
    Ok(pages)
}

pub(super) fn too_large(size: u64, allowed: u64) -> String {
    format!("a page that decompresses to {size} bytes; data.limits.page_bytes allows {allowed}")
}

/// A part of a file, read sequentially.
struct Part<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let read = read_at(self.file, &mut buffer[..most], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

struct Counted<R> {
    inner: R,
    taken: u64,
}

impl<R: BufRead> Counted<R> {
    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.inner.read_exact(&mut byte)?;
        self.taken += 1;
        Ok(byte[0])
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        let skipped = io::copy(&mut (&mut self.inner).take(count), &mut io::sink())?;
        self.taken += skipped;
        match skipped == count {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// An unsigned number, seven bits per byte, lowest first.
    fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(invalid("a number of more than ten bytes"))
    }

    /// A signed number, with 0, -1, 1, -2, .. encoded as 0, 1, 2, 3, ..
    fn signed(&mut self) -> io::Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Reads a struct; `take` is called with each field's number and type, and returns whether it has read
    /// the field's value.
    fn fields(
        &mut self,
        depth: usize,
        take: &mut dyn FnMut(&mut Self, i64, u8) -> io::Result<bool>,
    ) -> io::Result<()> {
        let mut field = 0;
        loop {
            let byte = self.byte()?;
            let kind = byte & 0x0f;
            if kind == 0 {
                return Ok(());
            }
            field = match i64::from(byte >> 4) {
                0 => self.signed()?,
                step => field + step,
            };
            if !take(self, field, kind)? {
                self.pass(kind, false, depth)?;
            }
        }
    }

    /// Skips a value.
    fn pass(&mut self, kind: u8, in_list: bool, depth: usize) -> io::Result<()> {
        if depth == 0 {
            return Err(invalid("it is nested too deeply"));
        }
        match kind {
            // The value of a boolean field is part of its type.
            1 | 2 => self.skip(in_list.into()),
            3 => self.skip(1),
            4..=6 => self.varint().map(drop),
            7 => self.skip(8),
            8 => {
                let length = self.varint()?;
                self.skip(length)
            }
            9 | 10 => {
                let byte = self.byte()?;
                let count = match byte >> 4 {
                    15 => self.varint()?,
                    count => count.into(),
                };
                (0..count).try_for_each(|_| self.pass(byte & 0x0f, true, depth - 1))
            }
            11 => {
                let count = self.varint()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                (0..count).try_for_each(|_| {
                    self.pass(kinds >> 4, true, depth - 1)?;
                    self.pass(kinds & 0x0f, true, depth - 1)
                })
            }
            12 => self.fields(depth - 1, &mut |_, _, _| Ok(false)),
            13 => self.skip(16),
            _ => Err(invalid("an unknown type")),
        }
    }
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// The relevant fields of a `PageHeader`.
struct Header {
    /// Size after decompression.
    size: Option<i64>,
    /// Size in the file.
    stored: Option<i64>,
    values: Option<i64>,
    encoding: Option<i64>,
    /// Uncompressed bytes before the compressed part.
    levels: i64,
    is_compressed: bool,
}

fn header<R: BufRead>(source: &mut Counted<R>) -> io::Result<Header> {
    const I32: u8 = 5;
    const STRUCT: u8 = 12;
    let mut header = Header {
        size: None,
        stored: None,
        values: None,
        encoding: None,
        levels: 0,
        is_compressed: true,
    };
    source.fields(MAX_DEPTH, &mut |source, field, kind| {
        match (field, kind) {
            (2, I32) => header.size = Some(source.signed()?),
            (3, I32) => header.stored = Some(source.signed()?),
            // DataPageHeader
            (5, STRUCT) => source.fields(MAX_DEPTH, &mut |source, field, kind| {
                match (field, kind) {
                    (1, I32) => header.values = Some(source.signed()?),
                    (2, I32) => header.encoding = Some(source.signed()?),
                    _ => return Ok(false),
                }
                Ok(true)
            })?,
            // DataPageHeaderV2
            (8, STRUCT) => source.fields(MAX_DEPTH, &mut |source, field, kind| {
                match (field, kind) {
                    (1, I32) => header.values = Some(source.signed()?),
                    (4, I32) => header.encoding = Some(source.signed()?),
                    (5 | 6, I32) => {
                        header.levels = header.levels.saturating_add(source.signed()?);
                    }
                    (7, 1 | 2) => header.is_compressed = kind == 1,
                    _ => return Ok(false),
                }
                Ok(true)
            })?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(header)
}
