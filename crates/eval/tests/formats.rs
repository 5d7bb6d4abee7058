//! The same rows from every format; the files were written by pyarrow (`formats/make.py`).

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

/// The `parquet` and `arrow-ipc` crates panic on some of these files, or allocate the memory that a damaged
/// length declares and abort the process; here they are errors or rows.
#[test]
fn a_flipped_bit_does_not_end_the_process() {
    let folder = tempfile::tempdir().unwrap();
    for (name, step) in [
        ("rows.parquet", 5),
        ("rows.stream.arrow", 3),
        ("rows.file.arrow", 3),
    ] {
        let path = folder.path().join(name);
        let bytes = std::fs::read(file(name)).unwrap();
        let mut errors = 0;
        for bit in (0..8 * bytes.len()).step_by(step) {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // Overwriting would wait for the disk each time, on file systems that guard against crashes.
            let _ = std::fs::remove_file(&path);
            std::fs::write(&path, &damaged).unwrap();
            if let Err(error) = read(&path) {
                assert!(error.to_string().contains(name), "{error}");
                errors += 1;
            }
        }
        assert!(errors > 0, "{name}");
    }
}

#[test]
fn invalid_lengths_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.arrow");
    let bytes = std::fs::read(file("rows.file.arrow")).unwrap();
    let error = |damaged: &[u8]| {
        std::fs::write(&path, damaged).unwrap();
        read(&path).unwrap_err().to_string()
    };
    // The eight bytes before an LZ4 frame are its decompressed size.
    let frame = bytes
        .windows(4)
        .position(|four| four == [4, 0x22, 0x4d, 0x18]);
    let length = frame.unwrap() - 8;
    let mut damaged = bytes.clone();
    damaged[length..length + 8].copy_from_slice(&(1i64 << 60).to_le_bytes());
    let found = error(&damaged);
    let expected = "decompresses to 1152921504606846976; allowed: ";
    assert!(found.contains(expected), "{found}");
    // The footer's length is stored before the last six bytes.
    let mut damaged = bytes.clone();
    let at = bytes.len() - 10;
    damaged[at..at + 4].copy_from_slice(&i32::MAX.to_le_bytes());
    let found = error(&damaged);
    assert!(found.contains("a footer of 2147483647 bytes"), "{found}");
    // A stream's message that is longer than the stream.
    let stream = std::fs::read(file("rows.stream.arrow")).unwrap();
    let mut damaged = stream.clone();
    damaged[4..8].copy_from_slice(&1_000_000i32.to_le_bytes());
    let found = error(&damaged);
    assert!(
        found.contains("a part of 1000000 bytes from byte 0"),
        "{found}"
    );
}

#[test]
fn rows_out_of_proportion_to_their_file_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        read(&path).unwrap_err().to_string()
    };
    // A row of 17 MB, and rows of numbers that take 16 times their text.
    let long = format!("{{\"text\": \"{}\"}}", "x".repeat(17 << 20));
    for (name, text) in [
        ("long.jsonl", long.clone()),
        ("long.json", format!("[{long}]")),
    ] {
        let message = refused(name, &text);
        assert!(
            message.contains("row 1: more than 16777216 bytes"),
            "{message}"
        );
    }
    let numbers = format!("{{\"a\":[{}1]}}", "1,".repeat(4 << 20));
    let message = refused("numbers.jsonl", &[numbers.as_str(); 3].join("\n"));
    assert!(
        message.contains("the file's rows take more than"),
        "{message}"
    );
    let message = refused(
        "numbers.json",
        &format!("[{}]", [numbers.as_str(); 3].join(",")),
    );
    assert!(
        message.contains("the file's rows take more than"),
        "{message}"
    );
}
