//! Summaries of prepared directories and token files.

mod pairs;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use self::pairs::{Lengths, PairsInspection};
use crate::error::DataError;
use crate::manifest::Manifest;
use crate::prepare::{MANIFEST, TOKENIZER, TRAIN_TOKENS, VALIDATION_TOKENS};
use crate::token_file::TokenFile;
use crate::tokenizer::Tokenizer;

/// Number of frequent tokens listed.
const FREQUENT: usize = 20;
/// Number of tokens of the first document shown.
const START_TOKENS: u64 = 100;

/// The result of [`inspect`].
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// The directory's manifest, if a directory was inspected.
    pub manifest: Option<Manifest>,
    /// One entry per token file.
    pub files: Vec<TokenFileInspection>,
}

/// The summary of a token file.
#[derive(Clone, Debug, Serialize)]
pub struct TokenFileInspection {
    /// The file.
    pub path: PathBuf,
    /// Bytes per token.
    pub token_width: usize,
    /// Vocabulary size.
    pub vocab_size: usize,
    /// The hash of the tokenizer's vocabulary, in hexadecimal.
    pub vocab_hash: String,
    /// Number of documents.
    pub documents: u64,
    /// Whether documents are prompts with completions.
    pub has_prompts: bool,
    /// Whether documents are pairs of source and target.
    pub has_sources: bool,
    /// The lengths of pairs of source and target, if documents are these.
    pub pairs: Option<PairsInspection>,
    /// Number of tokens, including document ends.
    pub tokens: u64,
    /// Bytes of text that the tokens represent.
    pub text_bytes: u64,
    /// Bytes of text per token; 0 if there are no tokens.
    pub bytes_per_token: f64,
    /// The unigram entropy of the tokens, in bits per byte of text.
    pub unigram_bits_per_byte: f64,
    /// Number of tokens of the vocabulary that occur.
    pub tokens_used: u64,
    /// The most frequent tokens, most frequent first.
    pub frequent: Vec<FrequentToken>,
    /// The start of the first document, if a tokenizer is available.
    pub start: Option<String>,
}

/// A token and its frequency.
#[derive(Clone, Debug, Serialize)]
pub struct FrequentToken {
    /// The token.
    pub id: u32,
    /// Number of occurrences.
    pub count: u64,
    /// Its text, or its name if it is special; `None` if no tokenizer is available.
    pub text: Option<String>,
}

/// The prepared directories at a path: the path itself, if it is one or a token file, and otherwise
/// those in it, by name.
///
/// # Errors
/// [`DataError::NotPrepared`] if there are none.
pub fn find_prepared(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let metadata = std::fs::metadata(path).map_err(DataError::io(path))?;
    if !metadata.is_dir() || path.join(MANIFEST).is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(DataError::io(path))? {
        let folder = entry.map_err(DataError::io(path))?.path();
        // A directory that is still being prepared has a hidden name.
        let name = folder.file_name().unwrap_or_default().as_encoded_bytes();
        if !name.starts_with(b".") && folder.join(MANIFEST).is_file() {
            found.push(folder);
        }
    }
    found.sort();
    match found.is_empty() {
        true => Err(DataError::NotPrepared {
            path: path.to_path_buf(),
        }),
        false => Ok(found),
    }
}

/// Inspects a prepared directory, or a token file (with the `tokenizer.json` in its directory, if
/// any), and verifies its checksum.
///
/// # Errors
/// If a file is missing or damaged.
pub fn inspect(path: &Path) -> Result<Inspection, DataError> {
    inspect_within(path, None)
}

/// The same as [`inspect`], for a model with a context of `seq` tokens, of which pairs of source and target may
/// have more.
///
/// # Errors
/// If a file is missing or damaged.
pub fn inspect_within(path: &Path, seq: Option<usize>) -> Result<Inspection, DataError> {
    let is_folder = std::fs::metadata(path)
        .map_err(DataError::io(path))?
        .is_dir();
    let folder = match is_folder {
        true => path,
        false => path.parent().unwrap_or(Path::new("")),
    };
    let tokenizer = folder.join(TOKENIZER);
    let tokenizer = match is_folder || tokenizer.is_file() {
        true => Some(Tokenizer::open(&tokenizer)?),
        false => None,
    };
    if !is_folder {
        let files = vec![inspect_file(path, tokenizer.as_ref(), seq)?];
        let manifest = None;
        return Ok(Inspection { manifest, files });
    }
    let files = [TRAIN_TOKENS, VALIDATION_TOKENS].map(|name| folder.join(name));
    Ok(Inspection {
        manifest: Some(Manifest::open(&folder.join(MANIFEST))?),
        files: files
            .iter()
            .map(|file| inspect_file(file, tokenizer.as_ref(), seq))
            .collect::<Result<_, _>>()?,
    })
}

fn inspect_file(
    path: &Path,
    tokenizer: Option<&Tokenizer>,
    seq: Option<usize>,
) -> Result<TokenFileInspection, DataError> {
    let file = TokenFile::open(path)?;
    file.verify()?;
    // With another vocabulary the texts would not match the ids.
    let tokenizer = tokenizer.filter(|t| t.vocab_hash() == file.vocab_hash());
    let counts = file.counts()?;
    let mut by_count: Vec<usize> = (0..counts.len()).filter(|&id| counts[id] > 0).collect();
    let tokens_used = by_count.len() as u64;
    by_count.sort_by_key(|&id| (std::cmp::Reverse(counts[id]), id));
    let text_of = |id: u32| {
        let tokenizer = tokenizer?;
        let text = tokenizer.decode(&[id]).ok().filter(|text| !text.is_empty());
        text.or_else(|| tokenizer.token(id))
    };
    let frequent = by_count.iter().take(FREQUENT).map(|&id| FrequentToken {
        id: id as u32,
        count: counts[id],
        text: text_of(id as u32),
    });
    let start = match tokenizer {
        Some(tokenizer) if file.documents() > 0 => {
            let document = file.document(0)?;
            let end = document.end.min(document.start + START_TOKENS);
            let tokens = file.read(document.start..end)?;
            let source = (file.prompt_tokens(0)? as usize).min(tokens.len());
            Some(match (file.has_sources(), tokens.split_at(source)) {
                (true, (source, target)) if !target.is_empty() => {
                    let [source, target] = [source, target].map(|side| tokenizer.decode(side));
                    format!("{}\n=> {}", source?, target?)
                }
                _ => tokenizer.decode(&tokens)?,
            })
        }
        _ => None,
    };
    Ok(TokenFileInspection {
        path: path.to_path_buf(),
        token_width: file.token_width(),
        vocab_size: file.vocab_size(),
        vocab_hash: blake3::Hash::from(file.vocab_hash()).to_hex().to_string(),
        documents: file.documents() as u64,
        has_prompts: file.has_prompts(),
        has_sources: file.has_sources(),
        pairs: match file.has_sources() {
            true => {
                let is_held_out = path.ends_with(VALIDATION_TOKENS);
                Some(pairs::inspect(&file, seq, is_held_out)?)
            }
            false => None,
        },
        tokens: file.len(),
        text_bytes: file.text_bytes(),
        bytes_per_token: file.text_bytes() as f64 / file.len().max(1) as f64,
        unigram_bits_per_byte: match file.text_bytes() {
            0 => 0.0,
            bytes => crate::statistics::unigram_bits_per_byte(&counts, bytes),
        },
        tokens_used,
        frequent: frequent.collect(),
        start,
    })
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(manifest) = &self.manifest {
            writeln!(f, "files read        {}", manifest.files)?;
            writeln!(f, "records skipped   {}", manifest.skipped.count)?;
            for skipped in &manifest.skipped.first {
                writeln!(f, "                  {}: {}", skipped.place, skipped.reason)?;
            }
            if let Some(cargo) = &manifest.cargo {
                writeln!(f, "crates            {}", cargo.crates)?;
                writeln!(f, "crates held out   {}", cargo.held_out.join(" "))?;
            }
            if let Some(docs) = &manifest.docs {
                writeln!(
                    f,
                    "files parsed      {}, {} not parsed",
                    docs.files, docs.not_parsed
                )?;
                writeln!(f, "documented        {} public functions", docs.functions)?;
                for (reason, count) in &docs.left_out {
                    let reason = reason.to_string();
                    writeln!(f, "left out          {count:>7} {reason}")?;
                }
            }
            writeln!(f)?;
        }
        for (at, file) in self.files.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            write!(f, "{file}")?;
        }
        Ok(())
    }
}

impl fmt::Display for TokenFileInspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.path.display())?;
        let kind = match (self.has_prompts, self.has_sources) {
            (true, _) => ", prompts with completions",
            (_, true) => ", pairs of source and target",
            _ => "",
        };
        writeln!(f, "documents         {}{kind}", self.documents)?;
        if let Some(pairs) = &self.pairs {
            write!(f, "{pairs}")?;
        }
        writeln!(
            f,
            "tokens            {} of {} bytes",
            self.tokens, self.token_width
        )?;
        writeln!(f, "text              {} bytes", self.text_bytes)?;
        writeln!(f, "bytes per token   {:.3}", self.bytes_per_token)?;
        writeln!(
            f,
            "unigram entropy   {:.3} bits per byte",
            self.unigram_bits_per_byte
        )?;
        writeln!(
            f,
            "vocabulary        {}, {} used, hash {}",
            self.vocab_size,
            self.tokens_used,
            &self.vocab_hash[..16]
        )?;
        write!(f, "most frequent    ")?;
        for token in &self.frequent {
            match &token.text {
                Some(text) => write!(f, " {text:?}:{}", token.count)?,
                None => write!(f, " {}:{}", token.id, token.count)?,
            }
        }
        writeln!(f)?;
        if let Some(start) = &self.start {
            writeln!(f, "begins")?;
            for line in start.lines() {
                writeln!(f, "  {line}")?;
            }
        }
        Ok(())
    }
}
