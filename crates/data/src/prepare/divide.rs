//! The division of text into training and held-out parts.
//!
//! Files of a separate validation source keep their part. If there are at least 20 other documents, whole
//! documents are held out, by a hash of their index; if there are fewer, the last part of each is, from a
//! line end on.

use super::scan::{FEW_DOCUMENTS, Scan};
use crate::config::{DataConfig, Validation};
use crate::error::{BadRecord, DataError};
use crate::source::{self, Reading, Split, Visitor};
use crate::token_file::DocumentKind;

/// Up to this number of documents the held-out number is exact; beyond, chance is exact enough.
const EXACT_DOCUMENTS: u64 = 1 << 17;

/// How documents without a fixed part are divided.
pub(super) enum Plan {
    /// Documents whose hash is at most this are held out.
    Whole { threshold: u64 },
    /// Each document is divided at the first line end at or after this byte.
    Tails { cuts: Vec<u64> },
}

impl Plan {
    pub fn new(scan: &Scan, config: &DataConfig) -> Self {
        let fraction = match &config.validation {
            Validation::Fraction(fraction) => *fraction,
            Validation::Path(_) | Validation::Aligned(_) => 0.0, // every item has a fixed part
        };
        // A pair is never separated.
        let are_texts = config.document_kind() == DocumentKind::Text;
        if are_texts && scan.undivided < FEW_DOCUMENTS as u64 {
            let cut = |&bytes: &u64| ((1.0 - fraction) * bytes as f64) as u64;
            let cuts = scan.sizes.iter().map(cut).collect();
            return Self::Tails { cuts };
        }
        let threshold = match scan.undivided <= EXACT_DOCUMENTS {
            true => {
                let mut hashes: Vec<u64> = (0..scan.undivided).map(hash).collect();
                hashes.sort_unstable();
                if hashes.is_empty() {
                    return Self::Whole { threshold: 0 };
                }
                let held_out = (fraction * scan.undivided as f64).round().max(1.0);
                hashes[(held_out as usize).min(hashes.len()) - 1]
            }
            false => (fraction * 2_f64.powi(64)) as u64,
        };
        Self::Whole { threshold }
    }
}

/// A document's position in a fixed random order.
fn hash(document: u64) -> u64 {
    let hash = blake3::hash(format!("held out: document {document}").as_bytes());
    u64::from_le_bytes(
        hash.as_bytes()[..8]
            .try_into()
            .expect("invariant: 8 of 32 bytes"),
    )
}

/// Output of [`read_divided`].
pub(super) enum Part<'a> {
    /// More text of the current document in this part.
    Text(Split, &'a str),
    /// The prompt or source of the current document in this part is complete.
    EndPrompt(Split),
    /// The current document in this part is complete.
    End(Split),
}

/// Reads every item and emits the text with its part.
pub(super) fn read_divided(
    scan: &Scan,
    plan: &Plan,
    reading: &Reading,
    take: &mut dyn FnMut(Part<'_>) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut divider = Divider {
        plan,
        take,
        own: None,
        document: 0,
        position: 0,
        current: Split::Train,
    };
    for item in &scan.items {
        divider.own = item.split;
        source::read(item, reading, &mut divider)?;
    }
    Ok(())
}

struct Divider<'a> {
    plan: &'a Plan,
    take: &'a mut dyn FnMut(Part<'_>) -> Result<(), DataError>,
    /// The part of the current item, if it is fixed.
    own: Option<Split>,
    /// Number of documents without a fixed part before the current one.
    document: u64,
    /// Bytes of the current document so far.
    position: u64,
    /// The part at `position` of a divided document.
    current: Split,
}

impl Divider<'_> {
    /// The part of the current piece, and the offset at which another part starts.
    fn divide(&mut self, text: &str) -> Option<usize> {
        match self.plan {
            Plan::Whole { threshold } => {
                self.current = match hash(self.document) <= *threshold {
                    true => Split::Validation,
                    false => Split::Train,
                };
                None
            }
            Plan::Tails { cuts } => {
                if self.current == Split::Validation {
                    return None;
                }
                let cut = cuts
                    .get(self.document as usize)
                    .copied()
                    .unwrap_or(u64::MAX);
                let within = cut.saturating_sub(self.position).try_into().ok()?;
                let rest = text.as_bytes().get(within..)?;
                let line_end = rest.iter().position(|&byte| byte == b'\n')?;
                Some(within + line_end + 1)
            }
        }
    }
}

impl Visitor for Divider<'_> {
    fn piece(&mut self, text: &str) -> Result<(), DataError> {
        if let Some(own) = self.own {
            return (self.take)(Part::Text(own, text));
        }
        let at = self.divide(text);
        self.position += text.len() as u64;
        let Some(at) = at else {
            return (self.take)(Part::Text(self.current, text));
        };
        let (first, second) = text.split_at(at);
        (self.take)(Part::Text(Split::Train, first))?;
        (self.take)(Part::End(Split::Train))?;
        self.current = Split::Validation;
        match second.is_empty() {
            true => Ok(()),
            false => (self.take)(Part::Text(Split::Validation, second)),
        }
    }

    fn end_prompt(&mut self) -> Result<(), DataError> {
        (self.take)(Part::EndPrompt(self.own.unwrap_or(self.current)))
    }

    fn end(&mut self) -> Result<(), DataError> {
        if let Some(own) = self.own {
            return (self.take)(Part::End(own));
        }
        self.document += 1;
        self.position = 0;
        let part = std::mem::replace(&mut self.current, Split::Train);
        (self.take)(Part::End(part))
    }

    fn bad(&mut self, _record: BadRecord) -> Result<(), DataError> {
        // Counted, or treated as an error, in the first reading.
        Ok(())
    }
}
