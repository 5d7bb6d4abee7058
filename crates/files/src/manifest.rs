//! The content of a directory: length and blake3 of each file.
//!
//! The manifest is written last, so a directory with a manifest is complete. Readers compare the
//! files with it. Directories from other sources have no manifest and are not verified.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{FileRecord, FilesError, read_regular, write_file};

/// The name of the manifest.
pub const MANIFEST: &str = "iiet-manifest.json";
/// The version of the manifest's format.
const FORMAT: u32 = 1;

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

impl Default for Manifest {
    fn default() -> Self {
        Self::new()
    }
}

impl Manifest {
    /// A manifest without files.
    pub fn new() -> Self {
        Self {
            format: FORMAT,
            incomplete: false,
            files: BTreeMap::new(),
        }
    }

    /// Records a file that has been written.
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
    /// [`FilesError::Io`].
    pub fn write(&self, dir: &Path) -> Result<(), FilesError> {
        let path = dir.join(MANIFEST);
        let json = serde_json::to_string_pretty(self).expect("invariant: plain data serialises");
        write_file(&path, |file| writeln!(file, "{json}"))
            .map(drop)
            .map_err(FilesError::io(&path))
    }

    /// Marks a directory as incomplete until [`write`](Self::write).
    ///
    /// # Errors
    ///
    /// [`FilesError::Io`].
    pub fn begin(dir: &Path) -> Result<(), FilesError> {
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
    /// [`FilesError::Manifest`] if it is malformed or marks the directory as incomplete.
    pub fn read(dir: &Path) -> Result<Option<Self>, FilesError> {
        let path = dir.join(MANIFEST);
        let bytes = match read_regular(&path) {
            // A dangling link means a lost manifest, not a directory without one.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {
                return Ok(None);
            }
            read => read.map_err(FilesError::io(&path))?,
        };
        let refuse = |reason: String| FilesError::Manifest {
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
            let reason = "writing the directory was interrupted";
            return Err(refuse(reason.into()));
        }
        for name in manifest.files.keys() {
            // Names must not refer to files outside the directory.
            if Path::new(name).file_name() != Some(name.as_ref()) {
                let reason = format!("it names {name:?}; allowed: files in the same directory");
                return Err(refuse(reason));
            }
        }
        Ok(Some(manifest))
    }

    /// Compares the bytes of one file with its record.
    ///
    /// # Errors
    ///
    /// [`FilesError::Differs`], also for a file without a record.
    pub fn check(&self, dir: &Path, name: &str, bytes: &[u8]) -> Result<(), FilesError> {
        self.compare(dir.join(name), name, FileRecord::of_bytes(bytes))
    }

    /// Reads files from disk and compares them with their records.
    ///
    /// # Errors
    ///
    /// [`FilesError::Differs`], or [`FilesError::Io`] for a file that cannot be read.
    pub fn verify<'a>(
        &self,
        dir: &Path,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), FilesError> {
        for name in names {
            let path = dir.join(name);
            let found = FileRecord::of(&path)?;
            self.compare(path, name, found)?;
        }
        Ok(())
    }

    fn compare(&self, path: PathBuf, name: &str, found: FileRecord) -> Result<(), FilesError> {
        match self.files.get(name) {
            Some(expected) if *expected == found => Ok(()),
            expected => Err(FilesError::Differs {
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
