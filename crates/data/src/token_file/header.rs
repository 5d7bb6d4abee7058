//! The header of a token file.
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

use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::tokenizer::MAX_VOCAB;

const MAGIC: &[u8; 8] = b"IIETTOKS";
/// The versions, which are those of [`DocumentKind`].
const VERSIONS: [DocumentKind; 3] = [
    DocumentKind::Text,
    DocumentKind::Prompts,
    DocumentKind::Sources,
];
pub(crate) const HEADER_BYTES: usize = 144;
pub(super) const HEADER_HASHED: usize = 112;

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
    pub fn row_bytes(&self) -> usize {
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

    /// Reads and checks the header of a file of the given length.
    ///
    /// # Errors
    /// [`DataError::Damaged`] with the invalid field.
    pub fn read(head: &[u8], length: u64, path: &Path) -> Result<Self, DataError> {
        let invalid =
            |what, found: String, expected: String| Err(damaged(path, what, found, expected));
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
        let header = Self {
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
}

/// What is wrong with a file, for an error.
pub(super) fn damaged(
    path: &Path,
    what: &'static str,
    found: String,
    expected: String,
) -> DataError {
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

pub(super) fn u64_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("invariant: eight bytes"))
}
