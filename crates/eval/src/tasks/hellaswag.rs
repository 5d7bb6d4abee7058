//! HellaSwag: how a described scene goes on (Zellers et al., arXiv:1905.07830).

use std::sync::LazyLock;

use regex::Regex;

use crate::data::Split::{Train, Validation};
use crate::data::{Document, HubData, Json};
use crate::error::EvalError;
use crate::python_text::{capitalize, strip};
use crate::task::{ACC_AND_NORM, Form, Source, Task};

pub(super) const TASK: Task = Task {
    name: "hellaswag",
    version: 1.0,
    source: Source::Hub(HubData {
        repository: "Rowan/hellaswag",
        subset: "default",
        splits: &[Train, Validation],
        adds: Some(processed),
    }),
    form: Form::Choice {
        context,
        choices,
        answer,
        delimiter: " ",
        accuracies: ACC_AND_NORM,
    },
};

fn context(document: &Document) -> Result<String, EvalError> {
    let activity = document.text("activity_label")?;
    let first = document.text("ctx_a")?;
    let second = capitalize(document.text("ctx_b")?);
    Ok(cleaned(&format!("{activity}: {first} {second}")))
}

fn choices(document: &Document) -> Result<Vec<String>, EvalError> {
    let endings = document.texts("endings")?;
    Ok(endings.into_iter().map(cleaned).collect())
}

fn answer(document: &Document) -> Result<usize, EvalError> {
    document.choice_in_digits("label", document.texts("endings")?.len())
}

/// What the harness adds to a row before it asks about it (`process_docs`).
fn processed(document: &Document) -> Result<Vec<(String, Json)>, EvalError> {
    let texts = choices(document)?.into_iter().map(Json::Text);
    Ok(vec![
        ("query".to_owned(), Json::Text(context(document)?)),
        ("choices".to_owned(), Json::List(texts.collect())),
        ("gold".to_owned(), Json::Number(answer(document)?.into())),
    ])
}

/// Without the marks that WikiHow's pages leave in the text.
fn cleaned(text: &str) -> String {
    static BRACKETS: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\[.*?\]").expect("invariant: a valid pattern"));
    let text = strip(text).replace(" [title]", ". ");
    BRACKETS.replace_all(&text, "").replace("  ", " ")
}
