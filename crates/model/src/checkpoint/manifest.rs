//! What a directory written here holds: length and blake3 of each file.
//!
//! The manifest is written last, so a directory that has one was complete. Whoever reads such a
//! directory compares; directories published by others have no manifest and are taken as they are.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::durable::write_file;
use crate::ModelError;

/// The name of the manifest.
pub const MANIFEST: &str = "iiet-manifest.json";
/// The version of its layout.
const FORMAT: u32 = 1;
/// Bytes hashed at a time.
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
    pub(super) fn new(bytes: u64, hash: blake3::Hash) -> Self {
        Self {
            bytes,
            blake3: hash.to_hex().to_string(),
        }
    }

    /// The record of a file as it lies on disk.
    ///
    /// # Errors
    ///
    /// [`ModelError::Io`].
    pub fn of(path: &Path) -> Result<Self, ModelError> {
        let hash = |path: &Path| -> io::Result<Self> {
            let mut file = File::open(path)?;
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
        hash(path).map_err(ModelError::io(path))
    }
}

/// The files of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: u32,
    /// Set while the files are being replaced one by one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    incomplete: bool,
    files: BTreeMap<String, FileRecord>,
}

impl Manifest {
    pub(super) fn new() -> Self {
        Self {
            format: FORMAT,
            incomplete: false,
            files: BTreeMap::new(),
        }
    }

    /// Enters a file that has been written.
    pub fn add(&mut self, name: &str, record: FileRecord) {
        self.files.insert(name.to_owned(), record);
    }

    /// Whether a file is recorded.
    pub fn contains(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// All records, by file name.
    pub fn files(&self) -> impl Iterator<Item = (&str, &FileRecord)> {
        self.files
            .iter()
            .map(|(name, record)| (name.as_str(), record))
    }

    /// Writes the manifest, which completes a directory.
    ///
    /// # Errors
    ///
    /// [`ModelError::Io`].
    pub fn write(&self, dir: &Path) -> Result<(), ModelError> {
        let path = dir.join(MANIFEST);
        let json = serde_json::to_string_pretty(self).expect("invariant: plain data serialises");
        write_file(&path, |file| writeln!(file, "{json}"))
            .map(drop)
            .map_err(ModelError::io(&path))
    }

    /// Marks a directory as incomplete until [`write`](Self::write).
    pub(super) fn begin(dir: &Path) -> Result<(), ModelError> {
        let incomplete = Self {
            incomplete: true,
            ..Self::new()
        };
        incomplete.write(dir)
    }

    /// Reads the manifest of a directory; `None` if it has none.
    ///
    /// # Errors
    ///
    /// [`ModelError::Manifest`] if it is malformed or says that the directory is incomplete.
    pub fn read(dir: &Path) -> Result<Option<Self>, ModelError> {
        let path = dir.join(MANIFEST);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(ModelError::io(&path))?,
        };
        let refuse = |reason: String| ModelError::Manifest {
            path: path.clone(),
            reason,
        };
        let manifest: Self =
            serde_json::from_slice(&bytes).map_err(|error| refuse(error.to_string()))?;
        if manifest.format != FORMAT {
            let found = manifest.format;
            return Err(refuse(format!("format is {found}; allowed: {FORMAT}")));
        }
        if manifest.incomplete {
            let reason = "the directory was being written when that was interrupted";
            return Err(refuse(reason.into()));
        }
        for name in manifest.files.keys() {
            // It must not reach outside its directory.
            if Path::new(name).file_name() != Some(name.as_ref()) {
                let reason = format!("it names {name:?}; allowed: files beside it");
                return Err(refuse(reason));
            }
        }
        Ok(Some(manifest))
    }

    /// Compares the bytes of one file with its record.
    ///
    /// # Errors
    ///
    /// [`ModelError::Differs`], also for a file that has no record.
    pub fn check(&self, dir: &Path, name: &str, bytes: &[u8]) -> Result<(), ModelError> {
        self.compare(
            dir.join(name),
            name,
            FileRecord::new(bytes.len() as u64, blake3::hash(bytes)),
        )
    }

    /// Reads files from disk and compares them with their records.
    ///
    /// # Errors
    ///
    /// [`ModelError::Differs`], or [`ModelError::Io`] for a file that cannot be read.
    pub fn verify<'a>(
        &self,
        dir: &Path,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), ModelError> {
        for name in names {
            let path = dir.join(name);
            let found = FileRecord::of(&path)?;
            self.compare(path, name, found)?;
        }
        Ok(())
    }

    fn compare(&self, path: PathBuf, name: &str, found: FileRecord) -> Result<(), ModelError> {
        match self.files.get(name) {
            Some(expected) if *expected == found => Ok(()),
            expected => Err(ModelError::Differs {
                path,
                found: describe(&found),
                expected: expected.map_or_else(|| "no such file".into(), describe),
            }),
        }
    }
}

fn describe(record: &FileRecord) -> String {
    let hash: String = record.blake3.chars().take(12).collect();
    format!("{} bytes with blake3 {hash}..", record.bytes)
}
