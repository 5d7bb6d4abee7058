//! SciQ: science exam questions with a supporting passage (Welbl et al., arXiv:1707.06209).

use crate::data::Split::{Test, Train, Validation};
use crate::data::{Document, HubData};
use crate::error::EvalError;
use crate::python_text::lstrip;
use crate::task::{ACC_AND_NORM, Form, Source, Task};

pub(super) const TASK: Task = Task {
    name: "sciq",
    version: 1.0,
    source: Source::Hub(HubData {
        repository: "allenai/sciq",
        subset: "default",
        splits: &[Train, Validation, Test],
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

/// The correct answer is the last.
const CHOICES: [&str; 4] = [
    "distractor1",
    "distractor2",
    "distractor3",
    "correct_answer",
];

fn context(document: &Document) -> Result<String, EvalError> {
    let support = lstrip(document.text("support")?);
    let question = document.text("question")?;
    Ok(format!("{support}\nQuestion: {question}\nAnswer:"))
}

fn choices(document: &Document) -> Result<Vec<String>, EvalError> {
    let choice = |field: &&str| document.text(field).map(str::to_owned);
    CHOICES.iter().map(choice).collect()
}

fn answer(_: &Document) -> Result<usize, EvalError> {
    Ok(CHOICES.len() - 1)
}
