//! The last identifier of a held-out passage, which occurred earlier in it: LAMBADA's idea.

use crate::data::Document;
use crate::error::EvalError;
use crate::held_out::{self, Generate};
use crate::task::{Form, Source, Task};

pub(super) const TASK: Task = Task {
    name: "heldout_cloze",
    version: 1.0,
    source: Source::HeldOut(Generate::Files(held_out::cloze)),
    form: Form::Cloze {
        context,
        target,
        delimiter: "",
    },
};

fn context(document: &Document) -> Result<String, EvalError> {
    Ok(document.text("context")?.to_owned())
}

fn target(document: &Document) -> Result<String, EvalError> {
    Ok(document.text("target")?.to_owned())
}
