//! Packed tokens on disk, memory-mapped.
//!
//! All numbers are little-endian.
//!
//! ```text
//!   0  magic            8 bytes  "IIETTOKS"
//!   8  version          u32      1
//!  12  token width      u32      2 or 4 bytes
//!  16  vocabulary size  u64      ids are below it
//!  24  vocabulary hash  32 bytes
//!  56  tokens           u64
//!  64  documents        u64
//!  72  text bytes       u64
//!  80  payload checksum 32 bytes blake3 of all that follows the header
//! 112  header checksum  32 bytes blake3 of bytes 0 to 112
//! 144  tokens           width bytes each
//!      documents        16 bytes each: first token u64, bytes of text u64
//! ```
//!
//! Opening checks the header, that the file is exactly as long as it says, and the order of the
//! document table; [`TokenFile::verify`] reads everything and compares the payload's checksum.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use crate::error::DataError;
use crate::tokenizer::MAX_VOCAB;

pub(crate) const MAGIC: &[u8; 8] = b"IIETTOKS";
pub(crate) const VERSION: u32 = 1;
pub(crate) const HEADER_BYTES: usize = 144;
pub(crate) const HEADER_HASHED: usize = 112;
pub(crate) const DOCUMENT_BYTES: usize = 16;

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub width: usize,
    pub vocab_size: u64,
    pub vocab_hash: [u8; 32],
    pub tokens: u64,
    pub documents: u64,
    pub text_bytes: u64,
    pub payload_hash: [u8; 32],
}

impl Header {
    /// The bytes per token that a vocabulary needs.
    pub fn width_for(vocab_size: usize) -> usize {
        if vocab_size <= 1 << 16 { 2 } else { 4 }
    }

    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
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
    path: Arc<Path>,
    map: Arc<Mmap>,
    header: Header,
}

impl TokenFile {
    /// Opens a token file and checks its header, its length and its document table.
    ///
    /// The file must not be changed while it is open: it is mapped into memory.
    ///
    /// # Errors
    /// [`DataError::Damaged`] says which field is wrong; [`DataError::Io`] if there is no such file.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let file = File::open(path).map_err(DataError::io(path))?;
        // SAFETY: prepared files are written once, under another name, and renamed when complete;
        // nothing in this project changes them afterwards.
        let map = unsafe { Mmap::map(&file) }.map_err(DataError::io(path))?;
        let header = check_header(&map, path)?;
        let file = Self {
            path: path.into(),
            map: Arc::new(map),
            header,
        };
        file.check_documents()?;
        Ok(file)
    }

    /// The file's place.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tokens in the file, document ends included.
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

    /// Token ids are below this.
    pub fn vocab_size(&self) -> usize {
        self.header.vocab_size as usize
    }

    /// [`Tokenizer::vocab_hash`](crate::Tokenizer::vocab_hash) of the tokenizer that made the file.
    pub fn vocab_hash(&self) -> [u8; 32] {
        self.header.vocab_hash
    }

    /// blake3 over the header, which contains that of all tokens and documents: equal for files of
    /// equal content.
    pub fn content_hash(&self) -> [u8; 32] {
        let hash = &self.map[HEADER_HASHED..HEADER_BYTES];
        hash.try_into().expect("invariant: 32 bytes")
    }

    /// Bytes of text that the tokens stand for, document ends not counted.
    pub fn text_bytes(&self) -> u64 {
        self.header.text_bytes
    }

    /// Documents in the file.
    pub fn documents(&self) -> usize {
        self.header.documents as usize
    }

    /// The tokens of a document, its end included.
    ///
    /// # Panics
    /// If there is no document `index`.
    pub fn document(&self, index: usize) -> Range<u64> {
        let start = self.document_row(index).0;
        let end = match index + 1 < self.documents() {
            true => self.document_row(index + 1).0,
            false => self.len(),
        };
        start..end
    }

    /// Bytes of a document's text.
    ///
    /// # Panics
    /// If there is no document `index`.
    pub fn document_text_bytes(&self, index: usize) -> u64 {
        self.document_row(index).1
    }

    /// The tokens of a range.
    ///
    /// # Errors
    /// [`DataError::OutOfRange`] if the range leaves the file, [`DataError::TokenOutOfRange`] if an
    /// id is outside the vocabulary, which only a damaged file holds.
    pub fn read(&self, range: Range<u64>) -> Result<Vec<u32>, DataError> {
        let mut tokens = Vec::new();
        self.read_into(range, &mut tokens)?;
        Ok(tokens)
    }

    /// Appends the tokens of a range; otherwise like [`read`](Self::read).
    ///
    /// # Errors
    /// As [`read`](Self::read).
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
        // In range of the file, whose length fits in memory's address space.
        let width = self.header.width;
        let bytes = &self.token_bytes()[start as usize * width..end as usize * width];
        let from = tokens.len();
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
        match tokens[from..]
            .iter()
            .find(|&&t| u64::from(t) >= self.header.vocab_size)
        {
            Some(&token) => Err(DataError::TokenOutOfRange {
                path: Some(self.path.to_path_buf()),
                token,
                vocab_size: self.vocab_size(),
            }),
            None => Ok(()),
        }
    }

    /// How often each token occurs, by token id.
    ///
    /// # Errors
    /// As [`read`](Self::read).
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

    /// Reads the whole file and compares its checksum and its token ids with the header.
    ///
    /// # Errors
    /// [`DataError::Damaged`] or [`DataError::TokenOutOfRange`].
    pub fn verify(&self) -> Result<(), DataError> {
        let found = blake3::hash(&self.map[HEADER_BYTES..]);
        if found != self.header.payload_hash {
            return Err(damaged(
                &self.path,
                "the payload's checksum",
                found.to_hex().to_string(),
                blake3::Hash::from(self.header.payload_hash)
                    .to_hex()
                    .to_string(),
            ));
        }
        self.counts().map(drop)
    }

    fn token_bytes(&self) -> &[u8] {
        let end = HEADER_BYTES + self.header.tokens as usize * self.header.width;
        &self.map[HEADER_BYTES..end]
    }

    /// First token and text bytes of a document.
    fn document_row(&self, index: usize) -> (u64, u64) {
        let table = &self.map[HEADER_BYTES + self.header.tokens as usize * self.header.width..];
        let (rows, _) = table.as_chunks::<DOCUMENT_BYTES>();
        assert!(
            index < rows.len(),
            "document {index} asked for, there are {}",
            rows.len()
        );
        let (start, bytes) = rows[index].split_at(8);
        (u64_of(start), u64_of(bytes))
    }

    fn check_documents(&self) -> Result<(), DataError> {
        let mut text_bytes = 0_u64;
        let mut least = 0;
        for index in 0..self.documents() {
            let (start, bytes) = self.document_row(index);
            let in_order = if index == 0 {
                start == 0
            } else {
                start >= least
            };
            if !in_order || start >= self.len() {
                let expected = match index {
                    0 => "0".to_owned(),
                    _ => format!("{least} to {}", self.len()),
                };
                let what = "the first token of a document";
                return Err(damaged(&self.path, what, start.to_string(), expected));
            }
            least = start + 1;
            text_bytes = text_bytes.saturating_add(bytes);
        }
        if text_bytes != self.text_bytes() {
            let (found, expected) = (text_bytes.to_string(), self.text_bytes().to_string());
            let what = "the sum of the documents' text bytes";
            return Err(damaged(&self.path, what, found, expected));
        }
        Ok(())
    }
}

fn check_header(bytes: &[u8], path: &Path) -> Result<Header, DataError> {
    let wrong = |what, found: String, expected: String| Err(damaged(path, what, found, expected));
    let Some((head, payload)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        let expected = format!("at least {HEADER_BYTES} bytes");
        return wrong("the length", format!("{} bytes", bytes.len()), expected);
    };
    if &head[..8] != MAGIC {
        let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
        return wrong("the magic number", show(&head[..8]), show(MAGIC));
    }
    let version = u32_of(&head[8..12]);
    if version != VERSION {
        return wrong("the version", version.to_string(), VERSION.to_string());
    }
    let hash = blake3::hash(&head[..HEADER_HASHED]);
    if head[HEADER_HASHED..] != *hash.as_bytes() {
        let found = hash.to_hex().to_string();
        let stored: [u8; 32] = head[HEADER_HASHED..]
            .try_into()
            .expect("invariant: 32 bytes left");
        let expected = blake3::Hash::from(stored).to_hex().to_string();
        return wrong("the header's checksum", found, expected);
    }
    let header = Header {
        width: u32_of(&head[12..16]) as usize,
        vocab_size: u64_of(&head[16..24]),
        vocab_hash: head[24..56].try_into().expect("invariant: 32 bytes"),
        tokens: u64_of(&head[56..64]),
        documents: u64_of(&head[64..72]),
        text_bytes: u64_of(&head[72..80]),
        payload_hash: head[80..112].try_into().expect("invariant: 32 bytes"),
    };
    if header.width != 2 && header.width != 4 {
        return wrong(
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
        return wrong(
            "the vocabulary size",
            header.vocab_size.to_string(),
            expected,
        );
    }
    let table = header.documents.checked_mul(DOCUMENT_BYTES as u64);
    let tokens = header.tokens.checked_mul(header.width as u64);
    let expected = tokens.and_then(|tokens| tokens.checked_add(table?));
    if expected != Some(payload.len() as u64) {
        let found = format!("{} bytes", payload.len());
        let expected = expected.map_or("beyond 64 bits".to_owned(), |n| format!("{n} bytes"));
        return wrong("the length after the header", found, expected);
    }
    if (header.documents == 0) != (header.tokens == 0) {
        let expected = "documents and tokens, or neither".to_owned();
        return wrong("the document count", header.documents.to_string(), expected);
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
