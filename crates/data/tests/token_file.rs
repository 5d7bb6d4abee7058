//! Properties of token files: written data is read back, and damage is detected.

use std::path::PathBuf;

use iiet_data::{DataError, TokenFile, TokenWriter};
use proptest::prelude::*;

fn write(documents: &[Vec<u32>], vocab_size: usize) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tokens");
    let mut writer = TokenWriter::create(&path, vocab_size, [9; 32]).unwrap();
    for document in documents {
        for part in document.chunks(3) {
            writer.push(part, 2 * part.len() as u64).unwrap();
        }
        writer.end_document().unwrap();
    }
    writer.finish().unwrap();
    (folder, path)
}

/// Opens and verifies a file, reading all of it; this must not panic.
fn check(path: &std::path::Path) -> Result<Vec<u32>, DataError> {
    let file = TokenFile::open(path)?;
    for document in 0..file.documents() {
        let range = file.document(document)?;
        file.read(range)?;
    }
    file.verify()?;
    file.read(0..file.len())
}

fn documents(vocab_size: u32) -> impl Strategy<Value = Vec<Vec<u32>>> {
    prop::collection::vec(prop::collection::vec(0..vocab_size, 1..20), 1..8)
}

proptest! {
    #[test]
    fn written_tokens_are_read_back(narrow in documents(65_536), wide in documents(65_537)) {
        for (documents, vocab_size, width) in [(narrow, 65_536, 2), (wide, 65_537, 4)] {
            let (_folder, path) = write(&documents, vocab_size);
            let file = TokenFile::open(&path).unwrap();
            prop_assert_eq!(file.token_width(), width);
            prop_assert_eq!(file.documents(), documents.len());
            prop_assert_eq!(file.vocab_hash(), [9; 32]);
            for (index, document) in documents.iter().enumerate() {
                prop_assert_eq!(&file.read(file.document(index).unwrap()).unwrap(), document);
                let bytes = file.document_text_bytes(index).unwrap();
                prop_assert_eq!(bytes, 2 * document.len() as u64);
            }
            prop_assert_eq!(check(&path).unwrap(), documents.concat());
            prop_assert_eq!(file.text_bytes(), 2 * file.len());
        }
    }

    #[test]
    fn every_flipped_bit_is_detected(documents in documents(300), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let (_folder, path) = write(&documents, 300);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        std::fs::write(&path, bytes).unwrap();
        prop_assert!(check(&path).is_err());
    }

    #[test]
    fn every_other_length_is_detected(documents in documents(300), at in any::<prop::sample::Index>(), more in 1_usize..40) {
        let (_folder, path) = write(&documents, 300);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..at.index(bytes.len())]).unwrap();
        prop_assert!(TokenFile::open(&path).is_err());
        std::fs::write(&path, [bytes, vec![0; more]].concat()).unwrap();
        prop_assert!(TokenFile::open(&path).is_err());
    }

    /// A header with a valid checksum may contain any values.
    #[test]
    fn arbitrary_headers_do_not_panic(fields in prop::collection::vec((0_usize..10, any::<u64>()), 1..4)) {
        let (_folder, path) = write(&[vec![1, 2, 3], vec![4]], 300);
        let mut bytes = std::fs::read(&path).unwrap();
        for (field, value) in fields {
            bytes[8 + 8 * field..][..8].copy_from_slice(&value.to_le_bytes());
        }
        let hash = blake3::hash(&bytes[..112]);
        bytes[112..144].copy_from_slice(hash.as_bytes());
        std::fs::write(&path, bytes).unwrap();
        let _ = check(&path);
    }

    /// A document table may contain any values.
    #[test]
    fn arbitrary_document_tables_do_not_panic(row in 0_usize..4, value in prop_oneof![0_u64..6, any::<u64>()]) {
        let (_folder, path) = write(&[vec![1, 2, 3], vec![4]], 300);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = 144 + 4 * 2 + 8 * row;
        let before = bytes[at..at + 8].to_vec();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        let changed = bytes[at..at + 8] != before;
        std::fs::write(&path, bytes).unwrap();
        prop_assert_eq!(check(&path).is_err(), changed);
    }
}

#[test]
fn an_empty_file_and_a_missing_one_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tokens");
    assert!(matches!(TokenFile::open(&path), Err(DataError::Io { .. })));
    std::fs::write(&path, "").unwrap();
    let error = TokenFile::open(&path).unwrap_err();
    assert!(error.to_string().contains("a.tokens"), "{error}");
}

#[test]
fn a_file_truncated_or_extended_while_open_is_an_error_at_the_next_read() {
    let (_folder, path) = write(&[vec![7; 100_000]], 300);
    let file = TokenFile::open(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 1000, whole.len() - 1, whole.len() + 1] {
        let mut bytes = whole.clone();
        bytes.resize(length, 0);
        std::fs::write(&path, bytes).unwrap();
        for error in [
            file.read(50_000..50_100).unwrap_err(),
            file.document(0).unwrap_err(),
            file.verify()
                .map_or_else(|error| error, |()| file.counts().unwrap_err()),
        ] {
            assert!(
                matches!(error, DataError::ChangedWhileOpen { .. }),
                "{error}"
            );
            assert!(
                error.to_string().contains(&format!("{length} bytes")),
                "{error}"
            );
        }
    }
    // The same bytes again, with another modification time.
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(file.read(99_999..100_000).unwrap(), [7]);
}

#[test]
fn changed_bytes_of_the_same_length_are_detected_while_open() {
    let (_folder, path) = write(&[vec![7; 1000]], 300);
    let file = TokenFile::open(&path).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[500] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    // Set explicitly, because the clock may be too coarse to distinguish the two writes.
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    let options = std::fs::File::options().write(true).open(&path).unwrap();
    options.set_modified(later).unwrap();
    let error = file.read(0..1).unwrap_err();
    assert!(matches!(error, DataError::Damaged { .. }), "{error}");
}
