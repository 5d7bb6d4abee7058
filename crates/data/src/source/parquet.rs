//! Reads a column of a Parquet file, or two of a pair, one document per row.
//!
//! Snappy, gzip, LZ4 and Zstandard pages are supported; other codecs are errors that name them.
//! Checksums of pages are verified if present.

mod checked;
mod pages;
mod sizes;
mod values;

use std::fs::File;

use iiet_files::open_regular;
use parquet::basic::Type as PhysicalType;
use parquet::column::reader::{ColumnReader, get_column_reader};
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use self::checked::CheckedPages;
pub use self::sizes::{ParquetSize, parquet_size};
use self::values::Values;
use super::decompress::{expansion, over_expansion};
use super::{Item, Reading, Visitor, give, jsonl};
use crate::error::{BadRecord, DataError, Problem};
use crate::guarded::guarded;

/// Rows per batch; their pages are decompressed one at a time.
const ROWS: usize = 256;

/// Emits the text of every row; a null is an invalid record.
pub(crate) fn read(
    item: &Item,
    reading: &Reading,
    visitor: &mut dyn Visitor,
) -> Result<(), DataError> {
    let bad = |row: Option<u64>, problem| BadRecord {
        path: item.path.clone(),
        line: row,
        problem,
    };
    let damaged = |row: Option<u64>, message| bad(row, Problem::Parquet { message });
    if item.bytes == 0 {
        return visitor.bad(bad(None, Problem::EmptyFile));
    }
    let file = open_regular(&item.path).map_err(DataError::io(&item.path))?;
    let pages_of = file.try_clone().map_err(DataError::io(&item.path))?;
    let reader = match step(|| SerializedFileReader::new(file)) {
        Ok(reader) => reader,
        Err(message) => return visitor.bad(damaged(None, message)),
    };
    let columns = reading.fields.iter();
    let columns: Result<Vec<usize>, Problem> =
        columns.map(|field| text_column(&reader, field)).collect();
    let columns = match columns {
        Ok(columns) => columns,
        Err(problem) => return visitor.bad(bad(None, problem)),
    };
    let mut row = 0;
    let allowed = reading.limits.page_bytes_of(item.bytes);
    // Rows refer to a dictionary, so their text may be much larger than the file.
    let mut left = expansion(item, &reading.limits);
    for group in 0..reader.num_row_groups() {
        // If values share prefixes, each is stored separately in memory.
        let mut rows = ROWS;
        let mut readers = Vec::with_capacity(columns.len());
        for &column in &columns {
            let chunk = reader.metadata().row_group(group).columns().get(column);
            let found = chunk.ok_or_else(|| "a row group without the column".to_owned());
            let found =
                found.and_then(|chunk| step(|| Ok(pages::survey(&pages_of, chunk, allowed)))?);
            let opened = found.and_then(|pages| {
                rows = if pages.prefixed { 1 } else { rows };
                step(|| open_column(&reader, group, column))
            });
            match opened {
                Ok(ColumnReader::ByteArrayColumnReader(column)) => readers.push(column),
                Ok(_) => {} // excluded by the schema, which was checked above
                Err(message) => return visitor.bad(damaged(Some(row + 1), message)),
            }
        }
        loop {
            let read = readers.iter_mut().map(|column| Values::read(column, rows));
            let mut values = match read.collect::<Result<Vec<Values>, String>>() {
                Ok(values) => values,
                Err(message) => return visitor.bad(damaged(Some(row + 1), message)),
            };
            let records = values.first().map_or(0, |values| values.rows());
            if values.iter().any(|values| values.rows() != records) {
                let message = "its columns differ in their numbers of rows".to_owned();
                return visitor.bad(damaged(Some(row + 1), message));
            }
            if records == 0 {
                break;
            }
            for at in 0..records {
                row += 1;
                // Of every column, also after an invalid value.
                let found: Vec<Option<ByteArray>> =
                    values.iter_mut().map(|values| values.take(at)).collect();
                let texts = found.iter().zip(&reading.fields);
                let texts = texts.map(|(value, field)| text_of(value.as_ref(), field, reading));
                let texts = texts.collect::<Result<Vec<&str>, Problem>>();
                let texts = match texts.and_then(|texts| reading.checked(texts)) {
                    Ok(texts) => texts,
                    Err(problem) => {
                        visitor.bad(bad(Some(row), problem))?;
                        continue;
                    }
                };
                let bytes = texts.iter().map(|text| text.len() as u64).sum();
                let Some(after) = left.checked_sub(bytes) else {
                    return visitor.bad(bad(Some(row), over_expansion(&reading.limits)));
                };
                left = after;
                give(&texts, visitor)?;
            }
        }
    }
    match row {
        0 => visitor.bad(bad(None, Problem::EmptyFile)),
        _ => Ok(()),
    }
}

/// A column of a row group, with its pages checked before they are decoded.
fn open_column(
    reader: &SerializedFileReader<File>,
    group: usize,
    column: usize,
) -> Result<ColumnReader, ParquetError> {
    let descriptor = reader
        .metadata()
        .file_metadata()
        .schema_descr()
        .column(column);
    let pages = CheckedPages {
        pages: reader
            .get_row_group(group)?
            .get_column_page_reader(column)?,
        levels: [
            descriptor.max_rep_level() > 0,
            descriptor.max_def_level() > 0,
        ],
    };
    Ok(get_column_reader(descriptor, Box::new(pages)))
}

/// Runs a step of the `parquet` crate. After an error or a panic the file is no longer read.
fn step<T>(step: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    match guarded(step) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("its pages are damaged".to_owned()),
    }
}

fn text_of<'a>(
    value: Option<&'a ByteArray>,
    field: &str,
    reading: &Reading,
) -> Result<&'a str, Problem> {
    let value = value.ok_or_else(|| Problem::WrongType {
        what: format!("the field \"{field}\""),
        found: "null".to_owned(),
        expected: "a string",
    })?;
    if value.len() as u64 > reading.limits.record_bytes {
        return Err(jsonl::too_long(reading));
    }
    std::str::from_utf8(value.data()).map_err(|error| Problem::NotUtf8 {
        offset: error.valid_up_to() as u64,
        of: "row's text",
    })
}

/// The index of the column of byte strings with this (dotted) name and one value per row.
fn text_column(reader: &SerializedFileReader<File>, field: &str) -> Result<usize, Problem> {
    let schema = reader.metadata().file_metadata().schema_descr();
    let columns = schema.columns();
    let found = columns.iter().position(|c| c.path().string() == field);
    let Some(index) = found else {
        return Err(Problem::MissingField {
            field: field.to_owned(),
            found: jsonl::listed(columns.iter().map(|c| c.path().string())),
        });
    };
    let column = &columns[index];
    let is_text = column.physical_type() == PhysicalType::BYTE_ARRAY;
    if !is_text || column.max_rep_level() > 0 || column.max_def_level() > 1 {
        return Err(Problem::WrongType {
            what: format!("the column \"{field}\""),
            found: match is_text {
                true => "nested".to_owned(),
                false => column.physical_type().to_string(),
            },
            expected: "one string per row",
        });
    }
    Ok(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use parquet::basic::Compression;
    use parquet::data_type::{ByteArrayType, Int32Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use crate::error::Problem;
    use crate::source::tests::{Collect, collect};

    /// Columns `id` and `text`; text is null for `None`. One row group per slice.
    fn file(groups: &[&[Option<&str>]], compression: Compression) -> Vec<u8> {
        let schema = "message m { required int32 id; optional binary text (UTF8); }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let properties = WriterProperties::builder()
            .set_compression(compression)
            .build();
        let mut bytes = Vec::new();
        let mut writer =
            SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).unwrap();
        for rows in groups {
            let mut group = writer.next_row_group().unwrap();
            let ids: Vec<i32> = (0..rows.len() as i32).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column
                .typed::<Int32Type>()
                .write_batch(&ids, None, None)
                .unwrap();
            column.close().unwrap();
            let values: Vec<ByteArray> = rows.iter().flatten().map(|&t| t.into()).collect();
            let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.is_some())).collect();
            let mut column = group.next_column().unwrap().unwrap();
            let typed = column.typed::<ByteArrayType>();
            typed.write_batch(&values, Some(&levels), None).unwrap();
            column.close().unwrap();
            group.close().unwrap();
        }
        writer.close().unwrap();
        bytes
    }

    #[test]
    fn every_row_is_a_document() {
        let groups: &[&[Option<&str>]] = &[&[Some("a"), None, Some("b")], &[Some("c"), Some("")]];
        for compression in [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(Default::default()),
            Compression::ZSTD(Default::default()),
            Compression::LZ4_RAW,
        ] {
            let got = collect("a.parquet", &file(groups, compression));
            assert_eq!(got.documents, ["a", "b", "c"]);
            let places: Vec<_> = got.bad.iter().map(|bad| bad.line).collect();
            assert_eq!(places, [Some(2), Some(5)]);
            assert_eq!(got.bad[1].problem, Problem::EmptyText);
        }
    }

    /// Columns `de` and `en` of 600 rows in one group; `de` is null in every seventh row and `en` blank in
    /// every ninth.
    fn pairs() -> Vec<u8> {
        let schema = "message m { optional binary de (UTF8); required binary en (UTF8); }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let mut bytes = Vec::new();
        let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let de = (0..600).filter(|i| i % 7 != 6);
        let de: Vec<ByteArray> = de.map(|i| format!("Zahl {i}").as_str().into()).collect();
        let levels: Vec<i16> = (0..600).map(|i| i16::from(i % 7 != 6)).collect();
        let en = (0..600).map(|i| match i % 9 {
            8 => " ".to_owned(),
            _ => format!("number {i}"),
        });
        let en: Vec<ByteArray> = en.map(|text| text.as_str().into()).collect();
        for (values, levels) in [(de, Some(levels)), (en, None)] {
            let mut column = group.next_column().unwrap().unwrap();
            let typed = column.typed::<ByteArrayType>();
            typed.write_batch(&values, levels.as_deref(), None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
        writer.close().unwrap();
        bytes
    }

    #[test]
    fn both_sides_of_a_pair_are_read_from_the_same_row() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        std::fs::write(&path, pairs()).unwrap();
        let item = &crate::source::find(&[&path], None).unwrap()[0];
        let reading = Reading {
            fields: vec!["en".to_owned(), "de".to_owned()],
            kind: crate::token_file::DocumentKind::Sources,
            ..Reading::of_field("")
        };
        let mut got = Collect::default();
        read(item, &reading, &mut got).unwrap();
        let valid = (0..600).filter(|i| i % 7 != 6 && i % 9 != 8);
        let expected: Vec<String> = valid.map(|i| format!("number {i}|Zahl {i}")).collect();
        assert_eq!(got.documents, expected);
        assert_eq!(got.bad.len(), 600 - expected.len());
        let first: Vec<String> = got.bad[..2]
            .iter()
            .map(|bad| format!("{} {}", bad.line.unwrap(), bad.problem))
            .collect();
        let null = "7 the field \"de\" is null, expected a string";
        assert_eq!(first, [null, "9 the source is empty"]);
    }

    #[test]
    fn many_rows_are_read_in_order() {
        let texts: Vec<String> = (0..1000).map(|i| format!("row {i}")).collect();
        let rows: Vec<Option<&str>> = texts.iter().map(|t| Some(t.as_str())).collect();
        let got = collect("a.parquet", &file(&[&rows], Compression::SNAPPY));
        assert_eq!(got.documents, texts);
    }

    #[test]
    fn text_much_larger_than_the_file_is_an_error() {
        // One text in a dictionary, and 160 rows that refer to it: 80 MiB from a few bytes.
        let text = "x".repeat(1 << 19);
        let rows = vec![Some(text.as_str()); 160];
        let bytes = file(&[&rows], Compression::SNAPPY);
        assert!(bytes.len() < 1 << 18, "{}", bytes.len());
        let got = collect("a.parquet", &bytes);
        assert_eq!(got.documents.len(), 128);
        let message = got.bad[0].to_string();
        assert!(message.contains("data.limits.expansion = 256"), "{message}");

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        std::fs::write(&path, &bytes).unwrap();
        let limits = crate::config::Limits {
            page_bytes: 1 << 18,
            ..Default::default()
        };
        let item = &crate::source::find(&[&path], None).unwrap()[0];
        let reading = Reading {
            limits: limits.clone(),
            ..Reading::of_field("text")
        };
        let mut got = Collect::default();
        read(item, &reading, &mut got).unwrap();
        let message = got.bad[0].to_string();
        assert!(
            message.contains("data.limits.page_bytes allows 262144"),
            "{message}"
        );

        let size = parquet_size(&path, &crate::Limits::default(), 1 << 30).unwrap();
        // The text, eight bytes and a level for each row, and a four-byte number.
        assert_eq!(size.rows, 160);
        assert!((80 << 20..81 << 20).contains(&size.bytes), "{}", size.bytes);
        let error = parquet_size(&path, &crate::Limits::default(), 1 << 20).unwrap_err();
        assert!(matches!(error, DataError::TooLarge { .. }), "{error}");
    }

    #[test]
    fn a_missing_column_is_an_error_listing_the_others_and_damage_does_not_panic() {
        let bytes = file(&[&[Some("some text")]], Compression::SNAPPY);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        std::fs::write(&path, &bytes).unwrap();
        let item = &crate::source::find(&[&path], None).unwrap()[0];
        for (field, message) in [
            ("body", "no field \"body\"; the fields here are: id, text"),
            (
                "id",
                "the column \"id\" is INT32, expected one string per row",
            ),
        ] {
            let mut got = Collect::default();
            read(item, &Reading::of_field(field), &mut got).unwrap();
            assert_eq!(got.bad[0].problem.to_string(), message);
        }
        for end in 0..bytes.len() {
            assert_eq!(collect("a.parquet", &bytes[..end]).bad.len(), 1);
        }
        for bit in 0..8 * bytes.len() {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            collect("a.parquet", &bytes);
        }
    }
}
