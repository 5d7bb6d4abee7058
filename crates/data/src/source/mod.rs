//! Sources of text: a list of [`Item`]s, each read as a stream of pieces of documents.
//!
//! A reader does not hold a whole document in memory if it is long: it emits pieces of at most
//! [`pieces::PIECE_BYTES`], split at line ends where possible, and then the end of the document. The splits
//! depend only on the text, so tokens do not depend on how it is read.

pub(crate) mod aligned;
pub(crate) mod cargo_deps;
pub(crate) mod cargo_docs;
mod csv;
mod decompress;
mod find;
mod json;
mod jsonl;
mod lines;
pub(crate) mod parquet;
mod pieces;
mod text;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use decompress::Compression;
pub(crate) use find::find;
pub(crate) use pieces::parts;

use crate::config::{DataConfig, Limits};
use crate::error::{BadRecord, DataError, Problem};
use crate::token_file::DocumentKind;

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The file is one document.
    Text,
    /// Every line is a document.
    Jsonl,
    /// Every element of an array is a document, or every line.
    Json,
    /// Every row is a document; fields are separated by this byte.
    Csv { delimiter: u8 },
    /// Every row is a document.
    Parquet,
    /// Every line is one side of a pair, of which the other is the same line of the item's target.
    Lines,
    /// The pairs are in memory.
    Pairs,
}

/// The two parts of a corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Split {
    Train,
    Validation,
}

/// One file of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub path: PathBuf,
    pub format: Format,
    pub compression: Compression,
    /// Size on disk, in bytes.
    pub bytes: u64,
    /// The part that this whole file belongs to; `None` if its documents are divided.
    pub split: Option<Split>,
    /// The file of the targets, for [`Format::Lines`].
    pub target: Option<Box<Item>>,
    /// The sources and targets of [`Format::Pairs`].
    pub pairs: Arc<[(String, String)]>,
}

impl Item {
    /// An uncompressed file.
    pub fn file(path: &Path, format: Format, bytes: u64, split: Option<Split>) -> Self {
        Self {
            path: path.to_path_buf(),
            format,
            compression: Compression::None,
            bytes,
            split,
            target: None,
            pairs: Arc::default(),
        }
    }

    /// The files of the item: itself, and that of its targets if there is one.
    pub fn files(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.target.as_deref())
    }
}

/// Receives the text of an item.
pub(crate) trait Visitor {
    /// More text of the current document, at most [`pieces::PIECE_BYTES`] and never empty.
    fn piece(&mut self, text: &str) -> Result<(), DataError>;
    /// The prompt or source of the current document is complete; its completion or target follows.
    fn end_prompt(&mut self) -> Result<(), DataError>;
    /// The current document is complete.
    fn end(&mut self) -> Result<(), DataError>;
    /// An invalid record. The text of the current document so far must be dropped.
    ///
    /// # Errors
    /// An error ends the reading; after `Ok` it continues with the next record.
    fn bad(&mut self, record: BadRecord) -> Result<(), DataError>;
}

/// Options for reading items.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    /// The fields or columns of the text, or of both sides of a pair.
    pub fields: Vec<String>,
    pub kind: DocumentKind,
    pub limits: Limits,
}

impl Reading {
    pub fn of(config: &DataConfig) -> Self {
        Self {
            fields: config
                .fields()
                .into_iter()
                .map(|(_, field)| field.to_owned())
                .collect(),
            kind: config.document_kind(),
            limits: config.limits.clone(),
        }
    }

    /// Checks that no text of a record is empty. The sides of a pair of source and target are stripped of
    /// white space around them, as translation corpora have a sentence per line.
    fn checked<'t>(&self, texts: Vec<&'t str>) -> Result<Vec<&'t str>, Problem> {
        match self.kind {
            DocumentKind::Text | DocumentKind::Prompts => {
                match texts.iter().any(|text| text.is_empty()) {
                    true => Err(Problem::EmptyText),
                    false => Ok(texts),
                }
            }
            DocumentKind::Sources => {
                let sides = texts.into_iter().zip(["source", "target"]);
                sides
                    .map(|(text, side)| match text.trim() {
                        "" => Err(Problem::EmptySide { side }),
                        text => Ok(text),
                    })
                    .collect()
            }
        }
    }

    /// The problem of a kind of file that holds no pairs, if pairs are to be read.
    fn without_pairs(&self, found: &'static str) -> Option<Problem> {
        let (pairs, keys) = match self.kind {
            DocumentKind::Text => return None,
            DocumentKind::Prompts => (
                "prompts with completions",
                "data.prompt_field and data.completion_field",
            ),
            DocumentKind::Sources => (
                "pairs of source and target",
                "data.source_field and data.target_field (two aligned text files are data.source = { source, target })",
            ),
        };
        Some(Problem::NoPairs {
            found,
            pairs,
            allowed: ".jsonl, .ndjson, .json, .csv, .tsv and .parquet",
            keys,
        })
    }

    #[cfg(test)]
    pub fn of_field(field: &str) -> Self {
        Self {
            fields: vec![field.to_owned()],
            kind: DocumentKind::Text,
            limits: Limits::default(),
        }
    }
}

/// Emits the texts of a record: one, or both sides of a pair.
fn give(texts: &[&str], visitor: &mut dyn Visitor) -> Result<(), DataError> {
    for (at, text) in texts.iter().enumerate() {
        if at > 0 {
            visitor.end_prompt()?;
        }
        for piece in pieces::pieces(text) {
            visitor.piece(piece)?;
        }
    }
    visitor.end()
}

/// Reads an item sequentially.
pub(crate) fn read(
    item: &Item,
    reading: &Reading,
    visitor: &mut dyn Visitor,
) -> Result<(), DataError> {
    let without_pairs = match item.format {
        Format::Text => reading.without_pairs("a text file"),
        _ => None,
    };
    if let Some(problem) = without_pairs {
        return visitor.bad(BadRecord {
            path: item.path.clone(),
            line: None,
            problem,
        });
    }
    match item.format {
        Format::Text => text::read(item, reading, visitor),
        Format::Jsonl => jsonl::read(item, reading, visitor),
        Format::Json => json::read(item, reading, visitor),
        Format::Csv { delimiter } => csv::read(item, delimiter, reading, visitor),
        Format::Parquet => parquet::read(item, reading, visitor),
        Format::Lines => match &item.target {
            Some(target) => aligned::read(item, target, reading, visitor),
            None => unreachable!("invariant: aligned files are found together"),
        },
        Format::Pairs => {
            let mut pairs = item.pairs.iter();
            pairs.try_for_each(|(source, target)| give(&[source, target], visitor))
        }
    }
}

/// The format and compression of a file in a directory, by its name; `None` if it is skipped.
pub(crate) fn kind(path: &Path) -> Option<(Format, Compression)> {
    let (compression, inner) = endings(path)?;
    let format = format_of(&inner?, compression)?;
    // Mostly configuration and tables of numbers; see `TEXT_EXTENSIONS`.
    let is_passed_over = matches!(format, Format::Json | Format::Csv { .. });
    (!is_passed_over).then_some((format, compression))
}

/// The format and compression of a file that is named directly: without an extension it is text.
pub(crate) fn direct_kind(path: &Path) -> Option<(Format, Compression)> {
    let (compression, inner) = endings(path)?;
    let format = match inner {
        Some(inner) => format_of(&inner, compression)?,
        None => Format::Text,
    };
    Some((format, compression))
}

/// The compression and the extension before it, by the name; `None` if it is not UTF-8.
fn endings(path: &Path) -> Option<(Compression, Option<String>)> {
    let ending = |path: &Path| match path.extension() {
        Some(ending) => Some(Some(ending.to_str()?.to_ascii_lowercase())),
        None => Some(None),
    };
    let outer = ending(path)?;
    let compression = match outer.as_deref() {
        Some("gz") => Compression::Gzip,
        Some("zst") => Compression::Zstd,
        _ => return Some((Compression::None, outer)),
    };
    Some((compression, ending(Path::new(path.file_stem()?))?))
}

fn format_of(ending: &str, compression: Compression) -> Option<Format> {
    match ending {
        "jsonl" | "ndjson" => Some(Format::Jsonl),
        "json" => Some(Format::Json),
        "csv" => Some(Format::Csv { delimiter: b',' }),
        "tsv" => Some(Format::Csv { delimiter: b'\t' }),
        "parquet" if compression == Compression::None => Some(Format::Parquet),
        ending if TEXT_EXTENSIONS.contains(&ending) => Some(Format::Text),
        _ => None,
    }
}

/// Extensions that are read as text in a directory: prose, markup, and common programming languages. Data
/// formats (csv, json, xml, svg) are excluded, because they are rarely meant as training text; `.json`,
/// `.csv` and `.tsv` files are read if they are named directly.
pub(crate) const TEXT_EXTENSIONS: &[&str] = &[
    "txt", "text", "log", "md", "markdown", "rst", "tex", "org", "adoc", "html", "htm", "rs", "py",
    "c", "h", "cc", "cpp", "hpp", "cu", "cuh", "go", "java", "js", "ts", "jsx", "tsx", "rb", "sh",
    "lua", "hs", "ml", "scala", "swift", "kt", "cs", "php", "pl", "r", "jl", "zig", "wgsl", "glsl",
    "sql", "toml", "lean", "v", "el", "lisp", "scm", "clj", "erl", "ex", "dart", "f90",
];

/// The supported extensions, for messages.
pub(crate) fn known_extensions() -> String {
    format!(
        ".jsonl .ndjson .json .csv .tsv .parquet .{} (all but Parquet also with .gz or .zst; .json, .csv and .tsv only if they are named directly)",
        TEXT_EXTENSIONS.join(" .")
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Collects whole documents and invalid records; stops at the first of these if configured so.
    #[derive(Default)]
    pub(crate) struct Collect {
        pub documents: Vec<String>,
        pub bad: Vec<BadRecord>,
        pub stop: bool,
        pub current: String,
    }

    impl Visitor for Collect {
        fn piece(&mut self, text: &str) -> Result<(), DataError> {
            assert!(!text.is_empty() && text.len() <= pieces::PIECE_BYTES);
            self.current.push_str(text);
            Ok(())
        }

        fn end_prompt(&mut self) -> Result<(), DataError> {
            self.current.push('|');
            Ok(())
        }

        fn end(&mut self) -> Result<(), DataError> {
            self.documents.push(std::mem::take(&mut self.current));
            Ok(())
        }

        fn bad(&mut self, record: BadRecord) -> Result<(), DataError> {
            self.current.clear();
            if self.stop {
                return Err(DataError::Bad(record));
            }
            self.bad.push(record);
            Ok(())
        }
    }

    /// Reads a file with this name and content, skipping invalid records.
    pub(crate) fn collect(name: &str, bytes: &[u8]) -> Collect {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let items = find(&[&path], None).unwrap();
        assert_eq!(items.len(), 1);
        let mut collect = Collect::default();
        read(&items[0], &Reading::of_field("text"), &mut collect).unwrap();
        collect
    }

    #[test]
    fn formats_are_recognised_by_name() {
        let of = |name: &str| kind(Path::new(name));
        assert_eq!(of("a.txt"), Some((Format::Text, Compression::None)));
        assert_eq!(of("a.MD"), Some((Format::Text, Compression::None)));
        assert_eq!(of("a.b.jsonl.gz"), Some((Format::Jsonl, Compression::Gzip)));
        assert_eq!(of("a.txt.zst"), Some((Format::Text, Compression::Zstd)));
        assert_eq!(of("a.parquet"), Some((Format::Parquet, Compression::None)));
        assert_eq!(of("a.parquet.gz"), None);
        assert_eq!(of("a.png"), None);
        assert_eq!(of("gz"), None);
        assert_eq!(of("a.json"), None);
        let direct = |name: &str| direct_kind(Path::new(name)).map(|(format, _)| format);
        assert_eq!(direct("a.json"), Some(Format::Json));
        assert_eq!(direct("a.csv.zst"), Some(Format::Csv { delimiter: b',' }));
        assert_eq!(direct("README"), Some(Format::Text));
        assert_eq!(direct("README.gz"), Some(Format::Text));
        for name in ["a.xml", "a.zip", "a.parquet.gz", "a.2024-01", "a.ipynb"] {
            assert_eq!(direct(name), None, "{name}");
        }
        assert_eq!(of("a.gz"), None);
    }
}
