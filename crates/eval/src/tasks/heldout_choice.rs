//! The lines that follow a held-out passage, against three runs of lines from other places:
//! HellaSwag's idea.

use crate::data::Document;
use crate::error::EvalError;
use crate::held_out::{self, Generate};
use crate::task::{Accuracy, Form, Source, Task};

pub(super) const TASK: Task = Task {
    name: "heldout_choice",
    version: 1.0,
    source: Source::HeldOut(Generate::Files(held_out::choice)),
    form: Form::Choice {
        context,
        choices,
        answer,
        delimiter: "",
        accuracies: &[Accuracy::Plain, Accuracy::Normalised, Accuracy::Bytes],
    },
};

fn context(document: &Document) -> Result<String, EvalError> {
    Ok(document.text("context")?.to_owned())
}

fn choices(document: &Document) -> Result<Vec<String>, EvalError> {
    let choices = document.texts("choices")?;
    Ok(choices.into_iter().map(str::to_owned).collect())
}

fn answer(document: &Document) -> Result<usize, EvalError> {
    document.choice("answer", document.texts("choices")?.len())
}
