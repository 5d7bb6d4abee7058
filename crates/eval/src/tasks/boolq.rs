//! BoolQ: yes or no to a question about a passage (Clark et al., arXiv:1905.10044).

use crate::data::Split::{Train, Validation};
use crate::data::{Document, HubData};
use crate::error::EvalError;
use crate::task::{Accuracy, Form, Source, Task};

pub(super) const TASK: Task = Task {
    name: "boolq",
    version: 2.0,
    source: Source::Hub(HubData {
        repository: "aps/super_glue",
        subset: "boolq",
        splits: &[Train, Validation],
        adds: None,
    }),
    form: Form::Choice {
        context,
        choices,
        answer,
        delimiter: " ",
        accuracies: &[Accuracy::Plain],
    },
};

fn context(document: &Document) -> Result<String, EvalError> {
    let passage = document.text("passage")?;
    let question = document.text("question")?;
    Ok(format!("{passage}\nQuestion: {question}?\nAnswer:"))
}

fn choices(_: &Document) -> Result<Vec<String>, EvalError> {
    Ok(vec!["no".to_owned(), "yes".to_owned()])
}

fn answer(document: &Document) -> Result<usize, EvalError> {
    document.choice("label", 2)
}
