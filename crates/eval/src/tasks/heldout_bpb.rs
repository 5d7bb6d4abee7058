//! Passages of held-out source text, whole: how many bits a byte costs.

use crate::data::Document;
use crate::error::EvalError;
use crate::held_out::{self, Generate};
use crate::task::{Form, Source, Task};

pub(super) const TASK: Task = Task {
    name: "heldout_bpb",
    version: 1.0,
    source: Source::HeldOut(Generate::Files(held_out::passages)),
    form: Form::Rolling {
        scored: whole,
        original: whole,
    },
};

fn whole(document: &Document) -> Result<String, EvalError> {
    Ok(document.text("text")?.to_owned())
}
