//! LAMBADA: the last word of a passage that only its whole gives away (Paperno et al.,
//! arXiv:1606.06031), in the text as OpenAI prepared it.

use crate::data::Split::Test;
use crate::data::{Document, HubData};
use crate::error::EvalError;
use crate::task::{Form, Source, Task};

pub(super) const TASK: Task = Task {
    name: "lambada_openai",
    version: 1.0,
    source: Source::Hub(HubData {
        repository: "EleutherAI/lambada_openai",
        subset: "default",
        splits: &[Test],
        adds: None,
    }),
    form: FORM,
};

/// Both preparations are asked alike.
pub(super) const FORM: Form = Form::Cloze {
    context,
    target,
    delimiter: " ",
};

/// The text before and after its last space; all of it is the word if it has none.
fn halves(document: &Document) -> Result<(&str, &str), EvalError> {
    let text = document.text("text")?;
    Ok(text.rsplit_once(' ').unwrap_or(("", text)))
}

fn context(document: &Document) -> Result<String, EvalError> {
    Ok(halves(document)?.0.to_owned())
}

fn target(document: &Document) -> Result<String, EvalError> {
    Ok([" ", halves(document)?.1].concat())
}
