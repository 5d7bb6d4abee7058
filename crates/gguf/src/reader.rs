//! Reading a GGUF file: the header at once, tensors one at a time.
//!
//! The format, all numbers little-endian: `GGUF`, the version (u32), the numbers of tensors and of values (u64);
//! the values, each a key, a type and the value; the tensors, each a name, its sizes from the row outwards, a
//! type and where its bytes begin; padding; the bytes of the tensors. Strings have their length (u64) before
//! them. Source: `docs/gguf.md` in ggml. Versions 2 and 3 differ only in that 3 may be big-endian, which is
//! refused. What ggml's own reader refuses is refused here too: gaps and overlaps between tensors, for example.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use iiet_files::open_regular;

use crate::GgufError;
use crate::blocks::dequantize;
use crate::metadata::{Metadata, Value};
use crate::source::Source;
use crate::tensors::{MAX_DIMS, MAX_NAME, TensorInfo, TensorType, aligned, check_layout};

/// The first bytes of a file.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
/// Values of the metadata, and tensors; no known model has a tenth of it.
const MAX_COUNT: u64 = 1 << 16;
/// A key of one byte, a type and a value of one byte.
const MIN_VALUE: u64 = 8 + 1 + 4 + 1;
/// A name of one byte, one size, a type and an offset.
const MIN_TENSOR: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// An open GGUF file whose header has been read.
#[derive(Debug)]
pub struct GgufReader<R> {
    path: PathBuf,
    bytes: R,
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    by_name: BTreeMap<String, usize>,
    /// Where the bytes of tensors begin in the file.
    data: u64,
}

impl GgufReader<BufReader<File>> {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    ///
    /// [`GgufError`] with the place in the file, what was found there and what is allowed.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let file = open_regular(path).map_err(GgufError::io(path))?;
        Self::new(BufReader::with_capacity(1 << 16, file), path)
    }
}

impl<R: Read + Seek> GgufReader<R> {
    /// Reads the header from bytes in memory or another source; `path` is used in messages.
    ///
    /// # Errors
    ///
    /// The same as for [`open`](GgufReader::open).
    pub fn new(mut bytes: R, path: &Path) -> Result<Self, GgufError> {
        let length = bytes.seek(SeekFrom::End(0)).map_err(GgufError::io(path))?;
        bytes.rewind().map_err(GgufError::io(path))?;
        let mut source = Source::new(path, &mut bytes, length);
        let version = read_version(&mut source, path)?;
        let n_tensors = read_count(&mut source, "tensors", MIN_TENSOR)?;
        let n_values = read_count(&mut source, "values", MIN_VALUE)?;
        let metadata = read_metadata(&mut source, n_values)?;
        let alignment = metadata.alignment()?;
        let tensors = read_tensors(&mut source, n_tensors)?;

        // The header is shorter than its limit, so this does not overflow.
        let data = aligned(source.at(), alignment).unwrap_or(u64::MAX);
        // Without tensors there need be no padding.
        check_layout(&tensors, alignment, length.saturating_sub(data)).map_err(
            |(name, reason)| GgufError::Tensor {
                path: path.to_owned(),
                name,
                reason,
            },
        )?;
        let names = tensors.iter().enumerate();
        Ok(Self {
            path: path.to_owned(),
            version,
            metadata,
            by_name: names.map(|(i, info)| (info.name.clone(), i)).collect(),
            tensors,
            data,
            bytes,
        })
    }

    /// The version of the format, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors, in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// A tensor, if the file has it.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|i| &self.tensors[*i])
    }

    /// The bytes of a tensor.
    ///
    /// # Errors
    ///
    /// [`GgufError::Tensor`] if the file does not have it, [`GgufError::Io`] if it cannot be read.
    pub fn read(&mut self, name: &str) -> Result<Vec<u8>, GgufError> {
        let info = self.tensor(name).ok_or_else(|| GgufError::Tensor {
            path: self.path.clone(),
            name: name.to_owned(),
            reason: "is not in the file".into(),
        })?;
        let (at, bytes) = (self.data + info.offset, info.bytes);
        let mut read = || -> std::io::Result<Vec<u8>> {
            let length = usize::try_from(bytes).map_err(|_| std::io::ErrorKind::OutOfMemory)?;
            // The tensor was inside the file when it was opened.
            let mut read = vec![0; length];
            self.bytes.seek(SeekFrom::Start(at))?;
            self.bytes.read_exact(&mut read)?;
            Ok(read)
        };
        read().map_err(GgufError::io(&self.path))
    }

    /// The values of a tensor.
    ///
    /// # Errors
    ///
    /// The same as for [`read`](Self::read).
    pub fn read_f32(&mut self, name: &str) -> Result<Vec<f32>, GgufError> {
        let bytes = self.read(name)?;
        let kind = self.tensor(name).map_or(TensorType::F32, |info| info.kind);
        Ok(dequantize(kind, &bytes))
    }
}

fn read_version<R: Read>(source: &mut Source<'_, R>, path: &Path) -> Result<u32, GgufError> {
    let magic: [u8; 4] = source.bytes()?;
    if magic != MAGIC {
        return Err(GgufError::Magic {
            path: path.to_owned(),
            found: magic.escape_ascii().to_string(),
        });
    }
    match source.u32()? {
        version @ (2 | 3) => Ok(version),
        // A small number whose bytes are in the opposite order.
        other if other & 0xffff == 0 && other != 0 => Err(GgufError::BigEndian {
            path: path.to_owned(),
            version: other.swap_bytes(),
        }),
        found => Err(GgufError::Version {
            path: path.to_owned(),
            found,
        }),
    }
}

fn read_count<R: Read>(
    source: &mut Source<'_, R>,
    what: &str,
    size: u64,
) -> Result<u64, GgufError> {
    let count = source.u64()?;
    if count > MAX_COUNT {
        return source.refuse(format!("{count} {what}; allowed: at most {MAX_COUNT}"));
    }
    source.check(what, count, size)?;
    Ok(count)
}

fn read_metadata<R: Read>(source: &mut Source<'_, R>, count: u64) -> Result<Metadata, GgufError> {
    let mut known = HashSet::new();
    let mut pairs: Vec<(String, Value)> = Vec::new();
    for _ in 0..count {
        let key = source.key()?;
        if !known.insert(key.clone()) {
            return source.refuse(format!("key {key:?} for the second time"));
        }
        let value = source.value()?;
        pairs.push((key, value));
    }
    Metadata::from_pairs(pairs)
}

fn read_tensors<R: Read>(
    source: &mut Source<'_, R>,
    count: u64,
) -> Result<Vec<TensorInfo>, GgufError> {
    let mut known = HashSet::new();
    let mut tensors = Vec::new();
    for _ in 0..count {
        let name = source.string("the name of a tensor", MAX_NAME)?;
        if !known.insert(name.clone()) {
            return source.refuse(format!("tensor {name:?} for the second time"));
        }
        let dims = source.u32()?;
        if !(1..=MAX_DIMS).contains(&dims) {
            return source.refuse(format!(
                "tensor {name:?} has {dims} dimensions; allowed: 1 to {MAX_DIMS}"
            ));
        }
        let sizes: Result<Vec<u64>, _> = (0..dims).map(|_| source.u64()).collect();
        let shape: Vec<u64> = sizes?.into_iter().rev().collect();
        let kind = match TensorType::from_number(source.u32()?) {
            Ok(kind) => kind,
            Err(reason) => return source.refuse(format!("tensor {name:?} is of type {reason}")),
        };
        let offset = source.u64()?;
        match TensorInfo::new(name, shape, kind) {
            Ok(info) => tensors.push(TensorInfo { offset, ..info }),
            Err(error) => return source.refuse(error.to_string()),
        }
    }
    Ok(tensors)
}
