//! OpenBookQA: facts of science applied to new situations (Mihaylov et al., arXiv:1809.02789).

use crate::data::Split::{Test, Train, Validation};
use crate::data::{Document, HubData};
use crate::error::EvalError;
use crate::python_text::lstrip;
use crate::task::{ACC_AND_NORM, Form, Source, Task};

pub(super) const TASK: Task = Task {
    name: "openbookqa",
    version: 1.0,
    source: Source::Hub(HubData {
        repository: "allenai/openbookqa",
        subset: "main",
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

fn context(document: &Document) -> Result<String, EvalError> {
    Ok(document.text("question_stem")?.to_owned())
}

fn choices(document: &Document) -> Result<Vec<String>, EvalError> {
    let choices = document.texts("choices.text")?;
    Ok(choices.into_iter().map(str::to_owned).collect())
}

fn answer(document: &Document) -> Result<usize, EvalError> {
    let labels = document.texts("choices.label")?;
    let key = lstrip(document.text("answerKey")?);
    document.position("answerKey", key, &labels)
}
