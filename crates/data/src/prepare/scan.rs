//! The first reading: validates every record and counts documents and bytes.

use crate::config::{DataConfig, OnError};
use crate::error::{BadRecord, DataError};
use crate::manifest::SkipReport;
use crate::progress::Progress;
use crate::source::{self, Format, Item, Reading, Split, Visitor};

/// Number of documents whose sizes are kept. Fewer documents are each divided; more are held out as a whole.
pub(super) const FEW_DOCUMENTS: usize = 20;

/// The content of the source.
pub(super) struct Scan {
    /// The readable files.
    pub items: Vec<Item>,
    /// Of all items.
    pub text_bytes: u64,
    /// Of all items.
    pub documents: u64,
    /// Sizes in bytes of the first documents without a fixed part.
    pub sizes: Vec<u64>,
    /// Number of documents without a fixed part.
    pub undivided: u64,
    pub skipped: SkipReport,
}

/// Reads every item once.
pub(super) fn scan(
    items: &[Item],
    config: &DataConfig,
    progress: &dyn Progress,
) -> Result<Scan, DataError> {
    progress.stage("reading", None);
    let mut counter = Counter {
        on_error: config.on_error,
        progress,
        split: None,
        current: 0,
        item_is_bad: false,
        found: Scan {
            items: Vec::new(),
            text_bytes: 0,
            documents: 0,
            sizes: Vec::new(),
            undivided: 0,
            skipped: SkipReport::default(),
        },
    };
    let reading = Reading::of(config);
    for item in items {
        counter.split = item.split;
        counter.current = 0;
        counter.item_is_bad = false;
        source::read(item, &reading, &mut counter)?;
        // A text file with an invalid part is skipped as a whole; records are skipped individually.
        if !(counter.item_is_bad && item.format == Format::Text) {
            counter.found.items.push(item.clone());
        }
    }
    let found = counter.found;
    progress.done(&format!(
        "{} documents, {:.1} MB of text{}",
        found.documents,
        found.text_bytes as f64 / 1e6,
        match found.skipped.count {
            0 => String::new(),
            count => format!(", {count} records skipped"),
        }
    ));
    Ok(found)
}

struct Counter<'a> {
    on_error: OnError,
    progress: &'a dyn Progress,
    split: Option<Split>,
    current: u64,
    item_is_bad: bool,
    found: Scan,
}

impl Visitor for Counter<'_> {
    fn piece(&mut self, text: &str) -> Result<(), DataError> {
        self.current += text.len() as u64;
        self.progress.advance(text.len() as u64);
        Ok(())
    }

    fn end_prompt(&mut self) -> Result<(), DataError> {
        Ok(())
    }

    fn end(&mut self) -> Result<(), DataError> {
        let bytes = std::mem::take(&mut self.current);
        self.found.text_bytes += bytes;
        self.found.documents += 1;
        if self.split.is_none() {
            self.found.undivided += 1;
            if self.found.sizes.len() < FEW_DOCUMENTS {
                self.found.sizes.push(bytes);
            }
        }
        Ok(())
    }

    fn bad(&mut self, record: BadRecord) -> Result<(), DataError> {
        self.current = 0;
        self.item_is_bad = true;
        match self.on_error {
            OnError::Stop => Err(DataError::Bad(record)),
            OnError::Skip => {
                self.found.skipped.add(&record);
                Ok(())
            }
        }
    }
}
