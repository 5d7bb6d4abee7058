//! The same rows from every format; pyarrow wrote the files (`formats/make.py`).

use std::path::{Path, PathBuf};

use iiet_eval::read;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/formats")
        .join(name)
}

#[test]
fn every_format_gives_the_same_rows() {
    let rows = read(&file("rows.jsonl")).unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(
        rows[0].texts("choices.text").unwrap(),
        ["a naïve stone", "日本"]
    );
    for name in ["rows.parquet", "rows.stream.arrow", "rows.file.arrow"] {
        assert_eq!(read(&file(name)).unwrap(), rows, "{name}");
    }
    let array = tempfile::tempdir().unwrap();
    let path = array.path().join("rows.json");
    let values: Vec<_> = rows.iter().map(|row| row.fields()).collect();
    std::fs::write(&path, serde_json::to_string(&values).unwrap()).unwrap();
    assert_eq!(read(&path).unwrap(), rows);
}

#[test]
fn damaged_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["rows.parquet", "rows.stream.arrow", "rows.file.arrow"] {
        let bytes = std::fs::read(file(name)).unwrap();
        let path = folder.path().join(name);
        for length in [0, 3, bytes.len() / 2, bytes.len() - 40] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            match read(&path) {
                // A stream may end between two batches.
                Ok(rows) => assert!(name.contains("stream") && rows.len() < 3, "{name} {length}"),
                Err(error) => assert!(error.to_string().contains(name), "{error}"),
            }
        }
    }
}

/// The `parquet` crate panics on some of these; here they are errors or rows.
#[test]
fn a_flipped_bit_in_parquet_does_not_end_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    let bytes = std::fs::read(file("rows.parquet")).unwrap();
    let mut errors = 0;
    for bit in (0..8 * bytes.len()).step_by(5) {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &damaged).unwrap();
        if let Err(error) = read(&path) {
            assert!(error.to_string().contains("rows.parquet"), "{error}");
            errors += 1;
        }
    }
    assert!(errors > 0);
}
