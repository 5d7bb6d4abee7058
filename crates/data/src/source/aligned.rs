//! Reads two text files of which line `i` of one belongs to line `i` of the other.

use std::path::Path;

use iiet_files::open_regular;

use super::decompress::read_error;
use super::lines::{Line, Lines};
use super::{Compression, Format, Item, Reading, Split, Visitor, endings, give, jsonl};
use crate::config::AlignedFiles;
use crate::error::{BadRecord, DataError, Problem};

/// The files as one item, whose target is the second.
pub(crate) fn find(files: &AlignedFiles, split: Option<Split>) -> Result<Item, DataError> {
    let item = |path: &str| {
        let path = Path::new(path);
        let file = open_regular(path).map_err(DataError::io(path))?;
        let bytes = file.metadata().map_err(DataError::io(path))?.len();
        // The other extension is mostly that of a language.
        let compression = endings(path).map_or(Compression::None, |(compression, _)| compression);
        Ok(Item {
            compression,
            ..Item::file(path, Format::Lines, bytes, split)
        })
    };
    Ok(Item {
        target: Some(Box::new(item(&files.target)?)),
        ..item(&files.source)?
    })
}

/// Emits every pair of lines, stripped of white space around them.
///
/// # Errors
/// [`DataError::LineCounts`] if the files differ in their numbers of lines.
pub(crate) fn read(
    item: &Item,
    target: &Item,
    reading: &Reading,
    visitor: &mut dyn Visitor,
) -> Result<(), DataError> {
    let items = [item, target];
    let mut sides = [Lines::open(item, reading)?, Lines::open(target, reading)?];
    let mut buffers = [Vec::new(), Vec::new()];
    loop {
        let mut found = [Line::End; 2];
        for side in 0..2 {
            found[side] = match sides[side].next(&mut buffers[side]) {
                Ok(line) => line,
                // The lines after the damage have no partners.
                Err(error) => {
                    let record = read_error(items[side], sides[side].count, error)?;
                    return visitor.bad(record);
                }
            };
        }
        match found {
            [Line::End, Line::End] => break,
            [Line::End, _] | [_, Line::End] => return differ(items, sides, visitor),
            _ => {}
        }
        let bad = |side: usize, problem| BadRecord {
            path: items[side].path.clone(),
            line: Some(sides[side].count),
            problem,
        };
        if let Some(side) = found.iter().position(|line| *line == Line::TooLong) {
            visitor.bad(bad(side, jsonl::too_long(reading)))?;
            continue;
        }
        match text(&buffers, reading) {
            Ok(texts) => give(&texts, visitor)?,
            Err((side, problem)) => visitor.bad(bad(side, problem))?,
        }
    }
    match sides[0].count {
        0 => visitor.bad(BadRecord {
            path: item.path.clone(),
            line: None,
            problem: Problem::EmptyFile,
        }),
        _ => Ok(()),
    }
}

/// The texts of both sides, or the first invalid side and its problem.
fn text<'b>(
    buffers: &'b [Vec<u8>; 2],
    reading: &Reading,
) -> Result<Vec<&'b str>, (usize, Problem)> {
    let mut texts = Vec::with_capacity(2);
    for (side, buffer) in buffers.iter().enumerate() {
        let text = std::str::from_utf8(buffer).map_err(|error| {
            let offset = error.valid_up_to() as u64;
            (side, Problem::NotUtf8 { offset, of: "line" })
        })?;
        texts.push(text);
    }
    reading.checked(texts).map_err(|problem| {
        let is_target = problem == Problem::EmptySide { side: "target" };
        (usize::from(is_target), problem)
    })
}

/// The error for files of different numbers of lines, which are counted to the end.
fn differ(
    items: [&Item; 2],
    mut sides: [Lines; 2],
    visitor: &mut dyn Visitor,
) -> Result<(), DataError> {
    for (item, lines) in items.into_iter().zip(&mut sides) {
        if let Err(error) = lines.skip_all() {
            return visitor.bad(read_error(item, lines.count, error)?);
        }
    }
    let [source, target] = items.map(|item| item.path.clone());
    Err(DataError::LineCounts {
        source_path: source,
        source_lines: sides[0].count,
        target_path: target,
        target_lines: sides[1].count,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::decompress::tests::{gzip, zstd};
    use crate::source::tests::Collect;
    use crate::token_file::DocumentKind;

    /// Reads two files with these names and contents, skipping invalid records.
    fn collect(source: (&str, &[u8]), target: (&str, &[u8])) -> Result<Collect, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let write = |(name, bytes): (&str, &[u8])| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path.display().to_string()
        };
        let files = AlignedFiles {
            source: write(source),
            target: write(target),
        };
        let item = find(&files, None).unwrap();
        let mut reading = Reading::of_field("");
        reading.kind = DocumentKind::Sources;
        reading.limits.record_bytes = 40;
        let mut got = Collect::default();
        crate::source::read(&item, &reading, &mut got)?;
        Ok(got)
    }

    fn messages(got: &Collect) -> Vec<String> {
        let place = |bad: &BadRecord| {
            let name = bad.path.file_name().unwrap().to_string_lossy().into_owned();
            format!("{name}:{} {}", bad.line.unwrap_or(0), bad.problem)
        };
        got.bad.iter().map(place).collect()
    }

    #[test]
    fn lines_are_paired_whatever_their_ends_and_compression() {
        let en = "\u{feff}one\r\n two \r\nthree\0\r\n";
        let de = "eins\nzwei\ndrei";
        for (en_name, en_bytes) in [
            ("a.en", en.as_bytes().to_vec()),
            ("a.en.gz", gzip(en.as_bytes())),
            ("a.zst", zstd(en.as_bytes())),
        ] {
            let got = collect((en_name, &en_bytes), ("a.de", de.as_bytes())).unwrap();
            assert_eq!(got.documents, ["one|eins", "two|zwei", "three\0|drei"]);
            assert!(got.bad.is_empty());
        }
    }

    #[test]
    fn invalid_lines_are_reported_at_their_file_and_line() {
        let en = b"a\n\nb\nc\n";
        let long = "x".repeat(50);
        let de = format!("\u{3000}\nA\n{long}\nC\n");
        let got = collect(("a.en", en), ("a.de", de.as_bytes())).unwrap();
        assert_eq!(got.documents, ["c|C"]);
        assert_eq!(
            messages(&got),
            [
                "a.de:1 the target is empty",
                "a.en:2 the source is empty",
                "a.de:3 a record of more than 40 bytes; data.limits.record_bytes = 40 is the limit",
            ]
        );
        let got = collect(("a.en", b"a\nb\xff\n"), ("a.de", b"A\nB\n")).unwrap();
        assert_eq!(messages(&got), ["a.en:2 not UTF-8 at byte 1 of the line"]);
    }

    #[test]
    fn different_numbers_of_lines_are_an_error_with_both() {
        for (en, de) in [("a\nb\nc\nd\n", "A\nB\n"), ("a\nb\nc\nd", "A\nB")] {
            let error = collect(("a.en", en.as_bytes()), ("a.de", de.as_bytes()));
            let error = error.map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("a.en has 4 lines"), "{error}");
            assert!(error.contains("a.de has 2"), "{error}");
            let swapped = collect(("a.en", de.as_bytes()), ("a.de", en.as_bytes()));
            let error = swapped.map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("a.en has 2 lines"), "{error}");
        }
        let got = collect(("a.en", b""), ("a.de", b"")).unwrap();
        assert_eq!(messages(&got), ["a.en:0 the file is empty"]);
    }

    #[test]
    fn complete_lines_before_a_truncation_are_read() {
        let line = |i: usize| format!("{}\n", i * 7919);
        let lines: String = (0..20_000).map(line).collect();
        let bytes = gzip(lines.as_bytes());
        let got = collect(
            ("a.en", lines.as_bytes()),
            ("a.de.gz", &bytes[..bytes.len() / 2]),
        );
        let got = got.unwrap();
        let kept = got.documents.len() as u64;
        assert!(kept > 1000, "{kept}");
        assert_eq!(got.bad.len(), 1);
        assert_eq!(got.bad[0].problem, Problem::Truncated { lines: kept });
        assert!(got.bad[0].path.ends_with("a.de.gz"));
    }
}
