//! Writes a token file sequentially, in bounded memory.
//!
//! The document table follows the tokens, so it is kept in a second file until the tokens are complete. The
//! header is written last: until then the file has no magic number and is not accepted as a token file.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::manifest::Counts;
use crate::token_file::{DocumentKind, HEADER_BYTES, Header};
use crate::tokenizer::MAX_VOCAB;

/// Writes one [`TokenFile`](crate::TokenFile).
#[derive(Debug)]
pub struct TokenWriter {
    path: PathBuf,
    tokens: BufWriter<File>,
    documents: BufWriter<File>,
    hash: blake3::Hasher,
    width: usize,
    vocab_size: usize,
    vocab_hash: [u8; 32],
    counts: Counts,
    document_start: u64,
    document_text: u64,
    kind: DocumentKind,
    /// Number of tokens of the current document's prompt or source.
    prompt: u64,
    bytes: Vec<u8>,
}

impl TokenWriter {
    /// Creates a file for tokens of this vocabulary.
    ///
    /// # Errors
    /// If the file cannot be created, or the vocabulary is empty or has more than 2^20 tokens.
    pub fn create(path: &Path, vocab_size: usize, vocab_hash: [u8; 32]) -> Result<Self, DataError> {
        Self::begin(path, vocab_size, vocab_hash, DocumentKind::Text)
    }

    /// The same as [`create`](Self::create), for documents that are prompts with completions, separated by
    /// [`end_prompt`](Self::end_prompt).
    ///
    /// # Errors
    /// The errors of [`create`](Self::create).
    pub fn create_pairs(
        path: &Path,
        vocab_size: usize,
        vocab_hash: [u8; 32],
    ) -> Result<Self, DataError> {
        Self::begin(path, vocab_size, vocab_hash, DocumentKind::Prompts)
    }

    /// The same as [`create_pairs`](Self::create_pairs), for documents that are pairs of source and target.
    /// Each side has at least one token: its document end.
    ///
    /// # Errors
    /// The errors of [`create`](Self::create).
    pub fn create_sources(
        path: &Path,
        vocab_size: usize,
        vocab_hash: [u8; 32],
    ) -> Result<Self, DataError> {
        Self::begin(path, vocab_size, vocab_hash, DocumentKind::Sources)
    }

    pub(crate) fn begin(
        path: &Path,
        vocab_size: usize,
        vocab_hash: [u8; 32],
        kind: DocumentKind,
    ) -> Result<Self, DataError> {
        if vocab_size == 0 || vocab_size > MAX_VOCAB {
            return Err(DataError::Config {
                key: "vocab_size",
                found: vocab_size.to_string(),
                allowed: format!("1 to {MAX_VOCAB}"),
            });
        }
        // In the same directory as the file, which has space for the tokens; removed when closed.
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let documents = tempfile::tempfile_in(folder).map_err(DataError::io(folder))?;
        let mut tokens = BufWriter::new(File::create(path).map_err(DataError::io(path))?);
        tokens
            .write_all(&[0; HEADER_BYTES])
            .map_err(DataError::io(path))?;
        Ok(Self {
            path: path.to_path_buf(),
            tokens,
            documents: BufWriter::new(documents),
            hash: blake3::Hasher::new(),
            width: Header::width_for(vocab_size),
            vocab_size,
            vocab_hash,
            counts: Counts::default(),
            document_start: 0,
            document_text: 0,
            kind,
            prompt: 0,
            bytes: Vec::new(),
        })
    }

    /// Appends tokens, which represent `text_bytes` bytes of text, to the current document.
    ///
    /// # Errors
    /// [`DataError::TokenOutOfRange`] for an id outside the vocabulary, or if the disk is full.
    pub fn push(&mut self, tokens: &[u32], text_bytes: u64) -> Result<(), DataError> {
        self.bytes.clear();
        for &token in tokens {
            if token as usize >= self.vocab_size {
                return Err(DataError::TokenOutOfRange {
                    path: Some(self.path.clone()),
                    token,
                    vocab_size: self.vocab_size,
                });
            }
            self.bytes
                .extend_from_slice(&token.to_le_bytes()[..self.width]);
        }
        self.hash.update(&self.bytes);
        self.tokens
            .write_all(&self.bytes)
            .map_err(DataError::io(&self.path))?;
        self.counts.tokens += tokens.len() as u64;
        self.document_text += text_bytes;
        Ok(())
    }

    /// Whether the current document is empty so far.
    pub(crate) fn is_at_start(&self) -> bool {
        self.counts.tokens == self.document_start
    }

    /// Ends the prompt or source of the current document, which consists of the tokens so far. Has no effect
    /// in a file of text.
    pub fn end_prompt(&mut self) {
        self.prompt = self.counts.tokens - self.document_start;
    }

    /// Completes the current document; an empty one is dropped.
    ///
    /// # Errors
    /// If the disk is full.
    pub fn end_document(&mut self) -> Result<(), DataError> {
        if self.counts.tokens > self.document_start {
            let [start, text] = [self.document_start, self.document_text].map(u64::to_le_bytes);
            let prompt = self.prompt.to_le_bytes();
            let prompt = match self.kind {
                DocumentKind::Text => &[][..],
                DocumentKind::Prompts | DocumentKind::Sources => &prompt,
            };
            let row = [&start[..], &text, prompt];
            self.documents
                .write_all(&row.concat())
                .map_err(DataError::io(&self.path))?;
            self.counts.documents += 1;
            self.counts.text_bytes += self.document_text;
        }
        self.document_start = self.counts.tokens;
        self.document_text = 0;
        self.prompt = 0;
        Ok(())
    }

    /// Completes the file: writes table and header, and syncs it to disk.
    ///
    /// # Errors
    /// If the disk is full.
    pub fn finish(mut self) -> Result<Counts, DataError> {
        self.end_document()?;
        let path = self.path.clone();
        self.append_table().map_err(DataError::io(&path))?;
        Ok(self.counts)
    }

    fn append_table(&mut self) -> io::Result<()> {
        self.documents.flush()?;
        self.documents.get_mut().seek(SeekFrom::Start(0))?;
        let mut table = BufReader::new(self.documents.get_mut());
        let mut block = [0; 16 * 1024];
        loop {
            let read = table.read(&mut block)?;
            if read == 0 {
                break;
            }
            self.hash.update(&block[..read]);
            self.tokens.write_all(&block[..read])?;
        }
        let header = Header {
            kind: self.kind,
            width: self.width,
            vocab_size: self.vocab_size as u64,
            vocab_hash: self.vocab_hash,
            tokens: self.counts.tokens,
            documents: self.counts.documents,
            text_bytes: self.counts.text_bytes,
            payload_hash: *self.hash.finalize().as_bytes(),
        };
        self.tokens.flush()?;
        let file = self.tokens.get_mut();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&header.to_bytes())?;
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TokenFile;

    #[test]
    fn a_small_file_equals_the_documented_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.bin");
        let mut writer = TokenWriter::create(&path, 300, [7; 32]).unwrap();
        writer.push(&[1, 299], 3).unwrap();
        writer.end_document().unwrap();
        writer.end_document().unwrap();
        writer.push(&[2], 1).unwrap();
        let error = writer.push(&[300], 1).unwrap_err();
        assert!(matches!(
            error,
            DataError::TokenOutOfRange { token: 300, .. }
        ));
        let counts = writer.finish().unwrap();
        assert_eq!(
            counts,
            Counts {
                documents: 2,
                tokens: 3,
                text_bytes: 4
            }
        );

        let bytes = std::fs::read(&path).unwrap();
        #[rustfmt::skip]
        let payload = [
            1, 0, 43, 1, 2, 0, // tokens 1, 299, 2
            0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, // from token 0, 3 bytes
            2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, // from token 2, 1 byte
        ];
        assert_eq!(bytes[144..], payload);
        assert_eq!(bytes[..16], *b"IIETTOKS\x01\0\0\0\x02\0\0\0");
        assert_eq!(bytes[80..112], *blake3::hash(&payload).as_bytes());

        let file = TokenFile::open(&path).unwrap();
        assert_eq!(file.read(0..3).unwrap(), [1, 299, 2]);
        assert_eq!(file.document(0).unwrap(), 0..2);
        assert_eq!(file.document(1).unwrap(), 2..3);
        assert!(matches!(
            file.document(2),
            Err(DataError::OutOfRange { .. })
        ));
        assert_eq!(file.counts().unwrap()[299], 1);
        assert!(matches!(file.read(2..4), Err(DataError::OutOfRange { .. })));
        #[expect(clippy::reversed_empty_ranges)]
        let reversed = file.read(2..1);
        assert!(matches!(reversed, Err(DataError::OutOfRange { .. })));
        file.verify().unwrap();
    }

    #[test]
    fn an_unfinished_file_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.bin");
        let mut writer = TokenWriter::create(&path, 70_000, [7; 32]).unwrap();
        writer.push(&[69_999; 100_000], 3).unwrap();
        drop(writer);
        let error = TokenFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("magic"), "{error}");
    }
}
