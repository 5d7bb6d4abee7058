//! Any text: its perplexity by token, word and byte.
//!
//! A file of plain text is one document; rows of JSON Lines, Parquet or Arrow are one each, their
//! field `text`.

use crate::data::Document;
use crate::error::EvalError;
use crate::task::{Form, Source, Task};

pub(super) const TASK: Task = Task {
    name: "text",
    version: 1.0,
    source: Source::Text,
    form: Form::Rolling {
        scored: whole,
        original: whole,
    },
};

fn whole(document: &Document) -> Result<String, EvalError> {
    Ok(document.text("text")?.to_owned())
}
