//! Packed tokens on disk, accessed with positioned reads.
//!
//! All numbers are little-endian.
//!
//! ```text
//!   0  magic            8 bytes  "IIETTOKS"
//!   8  version          u32      1 for text, 2 for prompts with completions,
//!                                3 for pairs of source and target
//!  12  token width      u32      2 or 4 bytes
//!  16  vocabulary size  u64      ids are below it
//!  24  vocabulary hash  32 bytes
//!  56  tokens           u64
//!  64  documents        u64
//!  72  text bytes       u64
//!  80  payload checksum 32 bytes blake3 of all that follows the header
//! 112  header checksum  32 bytes blake3 of bytes 0 to 112
//! 144  tokens           width bytes each
//!      documents        16 bytes each: first token u64, bytes of text u64;
//!                       in versions 2 and 3 also the tokens of the prompt or source, u64
//! ```
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
use crate::tokenizer::MAX_VOCAB;

pub(crate) const MAGIC: &[u8; 8] = b"IIETTOKS";
/// The versions, which are those of [`DocumentKind`].
const VERSIONS: [DocumentKind; 3] = [
    DocumentKind::Text,
    DocumentKind::Prompts,
    DocumentKind::Sources,
];
pub(crate) const HEADER_BYTES: usize = 144;
pub(crate) const HEADER_HASHED: usize = 112;

/// What each document of a corpus is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DocumentKind {
    /// A text.
    Text,
    /// A prompt and its completion.
    Prompts,
    /// A source and its target, each with a document end.
    Sources,
}

impl DocumentKind {
    /// The version of a file of such documents.
    fn version(self) -> u32 {
        match self {
            Self::Text => 1,
            Self::Prompts => 2,
            Self::Sources => 3,
        }
    }
}

/// The content of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub kind: DocumentKind,
    pub width: usize,
    pub vocab_size: u64,
    pub vocab_hash: [u8; 32],
    pub tokens: u64,
    pub documents: u64,
    pub text_bytes: u64,
    pub payload_hash: [u8; 32],
}

impl Header {
    /// Bytes per row of the document table.
    fn row_bytes(&self) -> usize {
        match self.kind {
            DocumentKind::Text => 16,
            DocumentKind::Prompts | DocumentKind::Sources => 24,
        }
    }

    /// The bytes per token for a vocabulary.
    pub fn width_for(vocab_size: usize) -> usize {
        if vocab_size <= 1 << 16 { 2 } else { 4 }
    }

    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&self.kind.version().to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.width as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.vocab_size.to_le_bytes());
        bytes[24..56].copy_from_slice(&self.vocab_hash);
        bytes[56..64].copy_from_slice(&self.tokens.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.documents.to_le_bytes());
        bytes[72..80].copy_from_slice(&self.text_bytes.to_le_bytes());
        bytes[80..112].copy_from_slice(&self.payload_hash);
        let hash = blake3::hash(&bytes[..HEADER_HASHED]);
        bytes[112..].copy_from_slice(hash.as_bytes());
        bytes
    }
}

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
            header: check_header(&head, opened.length, path)?,
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

    fn document_row(&self, index: usize) -> Result<Row, DataError> {
        if index >= self.documents() {
            return Err(DataError::OutOfRange {
                what: "documents",
                start: index as u64,
                end: (index as u64).saturating_add(1),
                len: self.header.documents,
            });
        }
        self.check_unchanged()?;
        let mut row = [0; 24];
        let row = &mut row[..self.header.row_bytes()];
        self.opened.read_exact(
            self.table_offset() + (index * self.header.row_bytes()) as u64,
            row,
        )?;
        Ok(Row::of(row))
    }

    fn table_offset(&self) -> u64 {
        HEADER_BYTES as u64 + self.header.tokens * self.header.width as u64
    }

    fn check_documents(&self) -> Result<(), DataError> {
        let damaged = |what, found: u64, expected: String| {
            Err(damaged(self.path(), what, found.to_string(), expected))
        };
        let (mut text_bytes, mut least, mut prompt) = (0_u64, 0, 0);
        self.rows(&mut |row| {
            let in_order = match least {
                0 => row.start == 0,
                _ => row.start >= least,
            };
            if !in_order || row.start >= self.len() {
                let expected = match least {
                    0 => "0".to_owned(),
                    _ => format!("{least} to {}", self.len()),
                };
                return damaged("the first token of a document", row.start, expected);
            }
            // A source has at least its end.
            if row.prompt_tokens == 0 && self.has_sources() {
                let expected = "at least 1".to_owned();
                return damaged("the number of a source's tokens", 0, expected);
            }
            // A document has at least one token, and a pair at least one after its prompt.
            least = row
                .start
                .saturating_add(row.prompt_tokens)
                .saturating_add(1);
            prompt = row.prompt_tokens;
            text_bytes = text_bytes.saturating_add(row.text_bytes);
            Ok(())
        })?;
        if least > self.len() {
            let expected = "fewer than the document has".to_owned();
            return damaged("the number of a prompt's tokens", prompt, expected);
        }
        if text_bytes != self.text_bytes() {
            let what = "the sum of the documents' text bytes";
            return damaged(what, text_bytes, self.text_bytes().to_string());
        }
        Ok(())
    }

    /// The tokens of each document in turn and the number of those of its prompt or source, with the table
    /// read in blocks.
    pub(crate) fn each_document(
        &self,
        visit: &mut dyn FnMut(Range<u64>, u64) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        self.check_unchanged()?;
        let mut before: Option<Row> = None;
        self.rows(&mut |row| {
            let end = row.start;
            match before.replace(row) {
                Some(before) => visit(before.start..end.max(before.start), before.prompt_tokens),
                None => Ok(()),
            }
        })?;
        match before {
            Some(last) => visit(last.start..self.len().max(last.start), last.prompt_tokens),
            None => Ok(()),
        }
    }

    /// The document table in order.
    fn rows(&self, visit: &mut dyn FnMut(Row) -> Result<(), DataError>) -> Result<(), DataError> {
        const ROWS: u64 = 1 << 13;
        let documents = self.header.documents;
        let row_bytes = self.header.row_bytes();
        let mut block = vec![0; documents.min(ROWS) as usize * row_bytes];
        for first in (0..documents).step_by(ROWS as usize) {
            let rows = (documents - first).min(ROWS) as usize;
            let block = &mut block[..rows * row_bytes];
            let offset = self.table_offset() + first * row_bytes as u64;
            self.opened.read_exact(offset, block)?;
            for row in block.chunks(row_bytes) {
                visit(Row::of(row))?;
            }
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

/// A row of the document table.
struct Row {
    /// The document's first token.
    start: u64,
    text_bytes: u64,
    prompt_tokens: u64,
}

impl Row {
    /// Parses 16 bytes, or 24 in a file of pairs.
    fn of(row: &[u8]) -> Self {
        let number = |at: usize| row.get(at..at + 8).map_or(0, u64_of);
        Self {
            start: number(0),
            text_bytes: number(8),
            prompt_tokens: number(16),
        }
    }
}

/// Checks the header of a file of the given length.
fn check_header(head: &[u8], length: u64, path: &Path) -> Result<Header, DataError> {
    let invalid = |what, found: String, expected: String| Err(damaged(path, what, found, expected));
    let Some(head) = head.first_chunk::<HEADER_BYTES>() else {
        let expected = format!("at least {HEADER_BYTES} bytes");
        return invalid("the length", format!("{length} bytes"), expected);
    };
    let payload = length - HEADER_BYTES as u64;
    if &head[..8] != MAGIC {
        let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
        return invalid("the magic number", show(&head[..8]), show(MAGIC));
    }
    let version = u32_of(&head[8..12]);
    let Some(kind) = VERSIONS.into_iter().find(|kind| kind.version() == version) else {
        return invalid("the version", version.to_string(), "1, 2 or 3".to_owned());
    };
    let hash = blake3::hash(&head[..HEADER_HASHED]);
    if head[HEADER_HASHED..] != *hash.as_bytes() {
        let found = hash.to_hex().to_string();
        let stored: [u8; 32] = head[HEADER_HASHED..]
            .try_into()
            .expect("invariant: 32 bytes left");
        let expected = blake3::Hash::from(stored).to_hex().to_string();
        return invalid("the header's checksum", found, expected);
    }
    let header = Header {
        kind,
        width: u32_of(&head[12..16]) as usize,
        vocab_size: u64_of(&head[16..24]),
        vocab_hash: head[24..56].try_into().expect("invariant: 32 bytes"),
        tokens: u64_of(&head[56..64]),
        documents: u64_of(&head[64..72]),
        text_bytes: u64_of(&head[72..80]),
        payload_hash: head[80..112].try_into().expect("invariant: 32 bytes"),
    };
    if header.width != 2 && header.width != 4 {
        return invalid(
            "the token width",
            header.width.to_string(),
            "2 or 4".to_owned(),
        );
    }
    let most = if header.width == 2 {
        1 << 16
    } else {
        MAX_VOCAB as u64
    };
    if header.vocab_size == 0 || header.vocab_size > most {
        let expected = format!("1 to {most}");
        return invalid(
            "the vocabulary size",
            header.vocab_size.to_string(),
            expected,
        );
    }
    let table = header.documents.checked_mul(header.row_bytes() as u64);
    let tokens = header.tokens.checked_mul(header.width as u64);
    let expected = tokens.and_then(|tokens| tokens.checked_add(table?));
    if expected != Some(payload) {
        let found = format!("{payload} bytes");
        let expected = expected.map_or("beyond 64 bits".to_owned(), |n| format!("{n} bytes"));
        return invalid("the length after the header", found, expected);
    }
    if (header.documents == 0) != (header.tokens == 0) {
        let expected = "documents and tokens, or neither".to_owned();
        return invalid("the document count", header.documents.to_string(), expected);
    }
    Ok(header)
}

fn damaged(path: &Path, what: &'static str, found: String, expected: String) -> DataError {
    DataError::Damaged {
        path: PathBuf::from(path),
        what,
        found,
        expected,
    }
}

fn u32_of(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("invariant: four bytes"))
}

fn u64_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("invariant: eight bytes"))
}
