//! Packed tokens on disk, accessed with positioned reads.
//!
//! The layout is in [`header`].
//!
//! Opening a file checks the header, the length of the file, and the order of the document table;
//! [`TokenFile::verify`] reads everything and compares the payload's checksum.
//!
//! Windows are read with positioned reads and not from a memory map: if another process truncates a mapped
//! file, access ends this process with SIGBUS, while a read of a few hundred bytes costs about a microsecond.
//! Every read first checks the file's length and modification time. A changed length is an error; after a
//! changed time the checksums are verified again before anything is used.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use iiet_files::open_regular;

use crate::error::DataError;
use crate::read_at::read_exact_at;

mod header;
mod table;

pub(crate) use header::{DocumentKind, HEADER_BYTES, Header};
use header::{HEADER_HASHED, damaged};

/// A file of packed tokens, read only and cheap to clone.
#[derive(Clone, Debug)]
pub struct TokenFile {
    opened: Arc<Opened>,
    header: Header,
}

/// The file, shared by all clones.
#[derive(Debug)]
struct Opened {
    path: PathBuf,
    file: File,
    /// Length in bytes when it was opened.
    length: u64,
    /// The modification time at which the content was last verified.
    modified: Mutex<Option<SystemTime>>,
}

/// Bytes read at a time.
const BLOCK_BYTES: usize = 1 << 17;

impl TokenFile {
    /// Opens a token file and checks its header, its length and its document table.
    ///
    /// # Errors
    /// [`DataError::Damaged`] with the invalid field; [`DataError::Io`] if there is no such file.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let file = open_regular(path).map_err(DataError::io(path))?;
        let metadata = file.metadata().map_err(DataError::io(path))?;
        let opened = Opened {
            path: path.to_path_buf(),
            file,
            length: metadata.len(),
            modified: Mutex::new(metadata.modified().ok()),
        };
        let mut head = vec![0; HEADER_BYTES.min(opened.length as usize)];
        opened.read_exact(0, &mut head)?;
        let file = Self {
            header: Header::read(&head, opened.length, path)?,
            opened: Arc::new(opened),
        };
        file.check_documents()?;
        Ok(file)
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.opened.path
    }

    /// The number of tokens in the file, including document ends.
    #[expect(
        clippy::len_without_is_empty,
        reason = "prepared files are never empty"
    )]
    pub fn len(&self) -> u64 {
        self.header.tokens
    }

    /// Bytes per token, 2 or 4.
    pub fn token_width(&self) -> usize {
        self.header.width
    }

    /// The vocabulary size.
    pub fn vocab_size(&self) -> usize {
        self.header.vocab_size as usize
    }

    /// [`Tokenizer::vocab_hash`](crate::Tokenizer::vocab_hash) of the tokenizer that made the file.
    pub fn vocab_hash(&self) -> [u8; 32] {
        self.header.vocab_hash
    }

    /// blake3 of the header, which contains the checksum of all tokens and documents: equal for files of
    /// equal content.
    pub fn content_hash(&self) -> [u8; 32] {
        *blake3::hash(&self.header.to_bytes()[..HEADER_HASHED]).as_bytes()
    }

    /// Whether its documents are prompts with completions.
    pub fn has_prompts(&self) -> bool {
        self.header.kind == DocumentKind::Prompts
    }

    /// Whether its documents are pairs of source and target, read with
    /// [`SequencePairs`](crate::SequencePairs).
    pub fn has_sources(&self) -> bool {
        self.header.kind == DocumentKind::Sources
    }

    /// Bytes of text that the tokens represent, excluding document ends.
    pub fn text_bytes(&self) -> u64 {
        self.header.text_bytes
    }

    /// The number of documents.
    pub fn documents(&self) -> usize {
        self.header.documents as usize
    }

    /// The tokens of a document, including its end.
    ///
    /// # Errors
    /// [`DataError::OutOfRange`] if there is no document `index`; [`DataError::Io`] or
    /// [`DataError::ChangedWhileOpen`] if the file can no longer be read.
    pub fn document(&self, index: usize) -> Result<Range<u64>, DataError> {
        let start = self.document_row(index)?.start;
        let end = match index + 1 < self.documents() {
            true => self.document_row(index + 1)?.start,
            false => self.len(),
        };
        Ok(start..end)
    }

    /// Bytes of a document's text.
    ///
    /// # Errors
    /// The same as for [`document`](Self::document).
    pub fn document_text_bytes(&self, index: usize) -> Result<u64, DataError> {
        Ok(self.document_row(index)?.text_bytes)
    }

    /// The number of tokens of a document's prompt or source, at its start; 0 in a file of text.
    ///
    /// # Errors
    /// The same as for [`document`](Self::document).
    pub fn prompt_tokens(&self, index: usize) -> Result<u64, DataError> {
        Ok(self.document_row(index)?.prompt_tokens)
    }

    /// The tokens of a range.
    ///
    /// # Errors
    /// [`DataError::OutOfRange`] if the range exceeds the file, [`DataError::TokenOutOfRange`] if an id is
    /// outside the vocabulary, which occurs only in a damaged file; [`DataError::Io`] or
    /// [`DataError::ChangedWhileOpen`] if the file can no longer be read.
    pub fn read(&self, range: Range<u64>) -> Result<Vec<u32>, DataError> {
        let mut tokens = Vec::new();
        self.read_into(range, &mut tokens)?;
        Ok(tokens)
    }

    /// Appends the tokens of a range; otherwise like [`read`](Self::read).
    ///
    /// # Errors
    /// The same as for [`read`](Self::read).
    pub fn read_into(&self, range: Range<u64>, tokens: &mut Vec<u32>) -> Result<(), DataError> {
        let Range { start, end } = range;
        if start > end || end > self.len() {
            return Err(DataError::OutOfRange {
                what: "tokens",
                start,
                end,
                len: self.len(),
            });
        }
        self.check_unchanged()?;
        let (from, width) = (tokens.len(), self.header.width);
        tokens.reserve((end - start) as usize);
        let mut block = vec![0; BLOCK_BYTES.min((end - start) as usize * width)];
        let mut at = start;
        while at < end {
            let count = ((end - at) as usize).min(BLOCK_BYTES / width);
            let bytes = &mut block[..count * width];
            let offset = HEADER_BYTES as u64 + at * width as u64;
            self.opened.read_exact(offset, bytes)?;
            match width {
                2 => tokens.extend(
                    bytes
                        .as_chunks()
                        .0
                        .iter()
                        .map(|b| u32::from(u16::from_le_bytes(*b))),
                ),
                _ => tokens.extend(bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b))),
            }
            at += count as u64;
        }
        match tokens[from..]
            .iter()
            .find(|&&t| u64::from(t) >= self.header.vocab_size)
        {
            Some(&token) => Err(DataError::TokenOutOfRange {
                path: Some(self.path().to_path_buf()),
                token,
                vocab_size: self.vocab_size(),
            }),
            None => Ok(()),
        }
    }

    /// The number of occurrences of each token, by token id.
    ///
    /// # Errors
    /// The same as for [`read`](Self::read).
    pub fn counts(&self) -> Result<Vec<u64>, DataError> {
        const STEP: u64 = 1 << 16;
        let mut counts = vec![0; self.vocab_size()];
        let mut tokens = Vec::new();
        for start in (0..self.len()).step_by(STEP as usize) {
            tokens.clear();
            self.read_into(start..self.len().min(start + STEP), &mut tokens)?;
            for &token in &tokens {
                counts[token as usize] += 1;
            }
        }
        Ok(counts)
    }

    /// Reads the whole file and verifies its checksum and its token ids.
    ///
    /// # Errors
    /// [`DataError::Damaged`] or [`DataError::TokenOutOfRange`].
    pub fn verify(&self) -> Result<(), DataError> {
        self.verify_checksums()?;
        self.counts().map(drop)
    }

    fn verify_checksums(&self) -> Result<(), DataError> {
        let mut head = [0; HEADER_BYTES];
        self.opened.read_exact(0, &mut head)?;
        let hex = |hash: blake3::Hash| hash.to_hex().to_string();
        let (found, expected) = (blake3::hash(&head), blake3::hash(&self.header.to_bytes()));
        if found != expected {
            let what = "the header's hash";
            return Err(damaged(self.path(), what, hex(found), hex(expected)));
        }
        let mut hash = blake3::Hasher::new();
        let mut at = HEADER_BYTES as u64;
        let mut block = vec![0; BLOCK_BYTES];
        while at < self.opened.length {
            let bytes = (self.opened.length - at).min(BLOCK_BYTES as u64);
            let block = &mut block[..bytes as usize];
            self.opened.read_exact(at, block)?;
            hash.update(block);
            at += bytes;
        }
        let found = hash.finalize();
        let expected = blake3::Hash::from(self.header.payload_hash);
        if found != expected {
            let what = "the payload's checksum";
            return Err(damaged(self.path(), what, hex(found), hex(expected)));
        }
        Ok(())
    }

    /// Checks that the file has not changed since it was opened, by its length and time, and if the time
    /// differs, by its checksums.
    fn check_unchanged(&self) -> Result<(), DataError> {
        let Opened {
            path,
            file,
            length,
            modified,
        } = &*self.opened;
        let metadata = file.metadata().map_err(DataError::io(path))?;
        if metadata.len() != *length {
            return Err(self.opened.changed(metadata.len()));
        }
        let mut known = modified.lock().unwrap_or_else(PoisonError::into_inner);
        let now = metadata.modified().ok();
        if *known != now {
            self.verify_checksums()?;
            *known = now;
        }
        Ok(())
    }
}

impl Opened {
    fn read_exact(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DataError> {
        read_exact_at(&self.file, bytes, offset).map_err(|error| {
            // The ranges are within the length at opening, so an end of file is due to a later change.
            match (error.kind(), self.file.metadata()) {
                (std::io::ErrorKind::UnexpectedEof, Ok(metadata)) => self.changed(metadata.len()),
                _ => DataError::io(&self.path)(error),
            }
        })
    }

    fn changed(&self, found: u64) -> DataError {
        DataError::ChangedWhileOpen {
            path: self.path.clone(),
            found,
            expected: self.length,
        }
    }
}
