//! Reading a safetensors file from an untrusted source, one tensor at a time.
//!
//! The format: the length of the header (u64), the header in JSON, the bytes of the tensors. Duplicate and
//! unknown keys are refused, and tensors must cover the bytes without holes and overlaps. Memory is taken for
//! the header's text and for one tensor, both of which are in the file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use iiet_files::{SafetensorsEntry, SafetensorsHeader, open_regular};

use super::Dtype;
use crate::GgufError;

/// The length before the header, in bytes.
const LENGTH: u64 = SafetensorsHeader::LENGTH as u64;

/// An open file.
#[derive(Debug)]
pub(super) struct SafetensorsFile {
    path: PathBuf,
    file: File,
    /// Where the bytes of tensors begin.
    data: u64,
}

/// A tensor of a file.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<u64>,
    begin: u64,
    end: u64,
}

impl SafetensorsFile {
    /// Opens a file and reads its header.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Entry>), GgufError> {
        let io = |result: std::io::Result<()>| result.map_err(GgufError::io(path));
        let mut file = open_regular(path).map_err(GgufError::io(path))?;
        let length = file.metadata().map_err(GgufError::io(path))?.len();
        let refuse = |reason: String| GgufError::Safetensors {
            path: path.to_owned(),
            reason,
        };
        let Some(left) = length.checked_sub(LENGTH) else {
            return Err(refuse(format!(
                "{length} bytes; allowed: at least {LENGTH}"
            )));
        };
        let mut size = [0; LENGTH as usize];
        io(file.read_exact(&mut size))?;
        let size = u64::from_le_bytes(size);
        let limit = SafetensorsHeader::LIMIT;
        if size > left.min(limit) {
            return Err(refuse(format!(
                "a header of {size} bytes; {left} bytes follow, and {limit} are allowed"
            )));
        }
        let mut header = vec![0; size as usize];
        io(file.read_exact(&mut header))?;
        let header = SafetensorsHeader::parse(&header).map_err(GgufError::json(path))?;
        let entries = checked(header.tensors, left - size).map_err(refuse)?;
        let opened = Self {
            path: path.to_owned(),
            file,
            data: LENGTH + size,
        };
        Ok((opened, entries))
    }

    /// The bytes of a tensor.
    pub(super) fn read(&mut self, entry: &Entry) -> Result<Vec<u8>, GgufError> {
        let start = SeekFrom::Start(self.data + entry.begin);
        let mut read = || -> std::io::Result<Vec<u8>> {
            let length = usize::try_from(entry.end - entry.begin);
            let length = length.map_err(|_| std::io::ErrorKind::OutOfMemory)?;
            // The tensor was inside the file when it was opened.
            let mut bytes = vec![0; length];
            self.file.seek(start)?;
            self.file.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(GgufError::io(&self.path))
    }
}

/// The tensors, if they cover `found` bytes without holes and overlaps.
fn checked(tensors: Vec<(String, SafetensorsEntry)>, found: u64) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::with_capacity(tensors.len());
    for (
        name,
        SafetensorsEntry {
            dtype,
            shape,
            data_offsets: (begin, end),
        },
    ) in tensors
    {
        let Some(kind) = Dtype::from_name(&dtype) else {
            let allowed = "F32, F16, BF16, and I32 and I64 in packed matrices";
            return Err(format!("{name} is of type {dtype}; allowed: {allowed}"));
        };
        let elements = shape.iter().try_fold(1u64, |all, n| all.checked_mul(*n));
        let bytes = elements.and_then(|n| n.checked_mul(kind.bytes()));
        if bytes.is_none() || bytes != end.checked_sub(begin) {
            return Err(format!(
                "{name} of type {dtype} and shape {shape:?} is at bytes {begin} to {end}"
            ));
        }
        entries.push(Entry {
            name,
            dtype: kind,
            shape,
            begin,
            end,
        });
    }
    entries.sort_by_key(|entry| (entry.begin, entry.end));
    let mut next = 0;
    for entry in &entries {
        if entry.begin != next {
            let (name, begin) = (&entry.name, entry.begin);
            return Err(format!("{name} begins at byte {begin}; allowed: {next}"));
        }
        next = entry.end;
    }
    match next == found {
        true => Ok(entries),
        false => Err(format!(
            "the tensors end at byte {next}, but the data at {found}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(header: &str, data: &[u8]) -> Result<Vec<Entry>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        std::fs::write(&path, bytes).unwrap();
        let (mut file, entries) = SafetensorsFile::open(&path).map_err(|e| e.to_string())?;
        for entry in &entries {
            file.read(entry).unwrap();
        }
        Ok(entries)
    }

    #[test]
    fn headers_that_break_the_format_are_refused() {
        let two = r#"{"b": {"dtype": "F16", "shape": [1, 2], "data_offsets": [4, 8]},
            "__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}"#;
        assert_eq!(open(two, &[0; 8]).unwrap()[1].name, "b");
        let change = |from: &str, to: &str| open(&two.replace(from, to), &[0; 8]).unwrap_err();
        for (from, to, expected) in [
            ("[4, 8]", "[0, 4]", "a begins at byte 0; allowed: 4"),
            ("[4, 8]", "[4, 7]", "shape [1, 2] is at bytes 4 to 7"),
            ("[1, 2]", "[9223372036854775807, 3]", "is at bytes 4 to 8"),
            ("\"a\"", "\"b\"", "duplicate key \"b\""),
            (
                "F16",
                "I16",
                "b is of type I16; allowed: F32, F16, BF16, and I32",
            ),
            ("shape\": [1, 2]", "size\": 1", "unknown field `size`"),
            ("{", "[", "line 1"),
        ] {
            let error = change(from, to);
            assert!(error.contains(expected), "{error}");
        }
        let error = open(two, &[0; 9]).unwrap_err();
        assert!(
            error.contains("end at byte 8, but the data at 9"),
            "{error}"
        );
        assert!(
            open(two, &[0; 7])
                .unwrap_err()
                .contains("but the data at 7")
        );
    }
}
