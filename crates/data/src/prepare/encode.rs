//! The last reading: tokenises text on all cores, in chunks, into two files.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::divide::{Part, Plan, read_divided};
use super::scan::Scan;
use super::{TRAIN_TOKENS, VALIDATION_TOKENS};
use crate::config::{DataConfig, TRAIN};
use crate::error::DataError;
use crate::manifest::Counts;
use crate::progress::Progress;
use crate::source::{Reading, Split};
use crate::token_file::DocumentKind;
use crate::token_writer::TokenWriter;
use crate::tokenizer::{DOCUMENT_ENDS, Tokenizer};

/// Text collected before it is tokenised; its pieces are distributed over the cores.
const CHUNK_BYTES: usize = 8 << 20;

/// The sizes of the written files.
pub(super) struct Written {
    pub train: Counts,
    pub validation: Counts,
}

/// Writes both token files into `folder`.
pub(super) fn encode(
    scan: &Scan,
    plan: &Plan,
    config: &DataConfig,
    tokenizer: &Tokenizer,
    folder: &Path,
    progress: &dyn Progress,
) -> Result<Written, DataError> {
    let kind = config.document_kind();
    if kind == DocumentKind::Sources && tokenizer.document_end().is_none() {
        let path = (config.tokenizer != TRAIN).then(|| PathBuf::from(&config.tokenizer));
        let message = format!(
            "it has no document end, which ends sources and begins and ends targets; known are {}",
            DOCUMENT_ENDS.join(", ")
        );
        return Err(DataError::Tokenizer { path, message });
    }
    progress.stage("tokenising", Some(scan.text_bytes));
    let create = |name| {
        let path = folder.join(name);
        TokenWriter::begin(&path, tokenizer.vocab_size(), tokenizer.vocab_hash(), kind)
    };
    let mut encoder = Encoder {
        tokenizer,
        progress,
        kind,
        train: create(TRAIN_TOKENS)?,
        validation: create(VALIDATION_TOKENS)?,
        chunk: Vec::new(),
        chunk_bytes: 0,
    };
    let (mut bytes, mut documents) = (0, 0);
    read_divided(scan, plan, &Reading::of(config), &mut |part| match part {
        Part::Text(split, text) => {
            bytes += text.len() as u64;
            encoder.push(Task::Text(split, text.to_owned()), text.len())
        }
        Part::EndPrompt(split) => encoder.push(Task::EndPrompt(split), 0),
        Part::End(split) => {
            documents += 1;
            encoder.push(Task::End(split), 0)
        }
    })?;
    encoder.flush()?;
    if bytes != scan.text_bytes {
        return Err(DataError::SourceChanged {
            before: scan.text_bytes,
            after: bytes,
            documents_before: scan.documents,
            documents_after: documents,
        });
    }
    let written = Written {
        train: encoder.train.finish()?,
        validation: encoder.validation.finish()?,
    };
    for (split, counts) in [
        ("training", written.train),
        ("validation", written.validation),
    ] {
        if counts.text_bytes == 0 {
            return Err(DataError::EmptySplit {
                split,
                documents: scan.documents,
                text_bytes: scan.text_bytes,
                held_out: written.validation.text_bytes,
                remedy: "provide more text, with line ends in it, or more records, another data.validation fraction, or the path of a validation source",
            });
        }
    }
    progress.done(&format!(
        "{} tokens to train on, {} held out, {:.2} bytes per token",
        written.train.tokens,
        written.validation.tokens,
        bytes as f64 / (written.train.tokens + written.validation.tokens) as f64,
    ));
    Ok(written)
}

enum Task {
    Text(Split, String),
    EndPrompt(Split),
    End(Split),
}

struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    progress: &'a dyn Progress,
    kind: DocumentKind,
    train: TokenWriter,
    validation: TokenWriter,
    chunk: Vec<Task>,
    chunk_bytes: usize,
}

impl Encoder<'_> {
    fn push(&mut self, task: Task, bytes: usize) -> Result<(), DataError> {
        self.chunk.push(task);
        // Every task takes memory and so counts, even the end of a document.
        self.chunk_bytes += bytes + size_of::<Task>();
        match self.chunk_bytes >= CHUNK_BYTES {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Tokenises the chunk and writes it in order.
    fn flush(&mut self) -> Result<(), DataError> {
        let encoded: Vec<Vec<u32>> = self
            .chunk
            .par_iter()
            .map(|task| match task {
                Task::Text(_, text) => self.tokenizer.encode(text),
                Task::EndPrompt(_) | Task::End(_) => Ok(Vec::new()),
            })
            .collect::<Result<_, _>>()?;
        for (task, tokens) in self.chunk.drain(..).zip(encoded) {
            let (Task::Text(split, _) | Task::EndPrompt(split) | Task::End(split)) = &task;
            let writer = match split {
                Split::Train => &mut self.train,
                Split::Validation => &mut self.validation,
            };
            match task {
                Task::Text(_, text) => {
                    // Encoded like a prompt of `generate`.
                    if self.kind == DocumentKind::Prompts && writer.is_at_start() {
                        writer.push(&self.tokenizer.start(), 0)?;
                    }
                    writer.push(&tokens, text.len() as u64)?;
                    self.progress.advance(text.len() as u64);
                }
                Task::EndPrompt(_) => {
                    let end = self.tokenizer.document_end();
                    if let (DocumentKind::Sources, Some(end)) = (self.kind, end) {
                        writer.push(&[end], 0)?;
                    }
                    writer.end_prompt();
                }
                Task::End(_) => {
                    if let Some(end) = self.tokenizer.document_end() {
                        writer.push(&[end], 0)?;
                    }
                    writer.end_document()?;
                }
            }
        }
        self.chunk_bytes = 0;
        Ok(())
    }
}
