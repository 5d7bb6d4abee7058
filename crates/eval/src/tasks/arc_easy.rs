//! ARC, the easy questions: natural science at school (Clark et al., arXiv:1803.05457).

use crate::data::Split::{Test, Train, Validation};
use crate::data::{Document, HubData};
use crate::error::EvalError;
use crate::task::{ACC_AND_NORM, Form, Source, Task};

pub(super) const TASK: Task = Task {
    name: "arc_easy",
    version: 1.0,
    source: Source::Hub(HubData {
        repository: "allenai/ai2_arc",
        subset: "ARC-Easy",
        splits: &[Train, Validation, Test],
        adds: None,
    }),
    form: FORM,
};

/// Both sets of questions are asked alike.
pub(super) const FORM: Form = Form::Choice {
    context,
    choices,
    answer,
    delimiter: " ",
    accuracies: ACC_AND_NORM,
};

fn context(document: &Document) -> Result<String, EvalError> {
    let question = document.text("question")?;
    Ok(format!("Question: {question}\nAnswer:"))
}

fn choices(document: &Document) -> Result<Vec<String>, EvalError> {
    let choices = document.texts("choices.text")?;
    Ok(choices.into_iter().map(str::to_owned).collect())
}

fn answer(document: &Document) -> Result<usize, EvalError> {
    let labels = document.texts("choices.label")?;
    document.position("answerKey", document.text("answerKey")?, &labels)
}
