//! Length and blake3 of a file, and one hash of several files.

use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{FilesError, open_regular};

/// Bytes that are hashed at a time.
const BLOCK: usize = 1 << 20;

/// Length and hash of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Bytes.
    pub bytes: u64,
    /// blake3 in hexadecimal, lower case.
    pub blake3: String,
}

impl FileRecord {
    pub(crate) fn new(bytes: u64, hash: blake3::Hash) -> Self {
        Self {
            bytes,
            blake3: hash.to_hex().to_string(),
        }
    }

    /// The record of bytes in memory.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self::new(bytes.len() as u64, blake3::hash(bytes))
    }

    /// The record of a file on disk.
    ///
    /// # Errors
    ///
    /// [`FilesError::Io`].
    pub fn of(path: &Path) -> Result<Self, FilesError> {
        let hash = |path: &Path| -> io::Result<Self> {
            let mut file = open_regular(path)?;
            let (mut hash, mut bytes) = (blake3::Hasher::new(), 0);
            let mut block = vec![0; BLOCK];
            loop {
                match file.read(&mut block)? {
                    0 => return Ok(Self::new(bytes, hash.finalize())),
                    read => {
                        hash.update(&block[..read]);
                        bytes += read as u64;
                    }
                }
            }
        };
        hash(path).map_err(FilesError::io(path))
    }
}

/// blake3, in hexadecimal, of the names and contents of all files of a directory that have one of
/// the extensions (`json`, without the dot).
///
/// # Errors
///
/// [`FilesError::Io`] if a file cannot be read.
pub fn hash_files(dir: &Path, endings: &[&str]) -> Result<String, FilesError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(FilesError::io(dir))? {
        let path = entry.map_err(FilesError::io(dir))?.path();
        let ending = path.extension().unwrap_or_default();
        if path.is_file() && endings.iter().any(|wanted| ending == *wanted) {
            files.push(path);
        }
    }
    files.sort();
    let mut all = blake3::Hasher::new();
    for path in files {
        all.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        all.update(b"\n");
        all.update(FileRecord::of(&path)?.blake3.as_bytes());
        all.update(b"\n");
    }
    Ok(all.finalize().to_hex().to_string())
}
