//! WinoGrande: which of two names a blank stands for (Sakaguchi et al., arXiv:1907.10641).
//!
//! Partial scoring: each name is put into the sentence up to the blank, and what comes after the
//! blank is scored behind it.

use crate::data::Split::{Train, Validation};
use crate::data::{Document, HubData};
use crate::error::EvalError;
use crate::python_text::strip;
use crate::task::{Form, Source, Task};

pub(super) const TASK: Task = Task {
    name: "winogrande",
    version: 1.0,
    source: Source::Hub(HubData {
        repository: "allenai/winogrande",
        subset: "winogrande_xl",
        splits: &[Train, Validation],
        adds: None,
    }),
    form: Form::Contexts {
        contexts,
        ending,
        answer,
    },
};

/// The sentence before and after its blank.
fn halves(document: &Document) -> Result<(&str, &str), EvalError> {
    let sentence = document.text("sentence")?;
    let halves = sentence.split_once('_');
    halves.ok_or_else(|| {
        let found = document.field("sentence");
        document.wrong("sentence", found, "a sentence with a blank, _")
    })
}

fn contexts(document: &Document) -> Result<Vec<String>, EvalError> {
    let (before, _) = halves(document)?;
    let with = |field| Ok([before, document.text(field)?].concat());
    ["option1", "option2"].into_iter().map(with).collect()
}

fn ending(document: &Document) -> Result<String, EvalError> {
    let (_, after) = halves(document)?;
    Ok(strip(after).to_owned())
}

fn answer(document: &Document) -> Result<usize, EvalError> {
    document.position("answer", document.text("answer")?, &["1", "2"])
}
