//! PIQA: which of two ways reaches a goal in the physical world (Bisk et al., arXiv:1911.11641).

use crate::data::Split::{Train, Validation};
use crate::data::{Document, HubData};
use crate::error::EvalError;
use crate::task::{ACC_AND_NORM, Form, Source, Task};

pub(super) const TASK: Task = Task {
    name: "piqa",
    version: 1.0,
    source: Source::Hub(HubData {
        repository: "baber/piqa",
        subset: "default",
        splits: &[Train, Validation],
        adds: None,
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
    let goal = document.text("goal")?;
    Ok(format!("Question: {goal}\nAnswer:"))
}

fn choices(document: &Document) -> Result<Vec<String>, EvalError> {
    let choice = |field| document.text(field).map(str::to_owned);
    ["sol1", "sol2"].into_iter().map(choice).collect()
}

fn answer(document: &Document) -> Result<usize, EvalError> {
    document.choice("label", 2)
}
