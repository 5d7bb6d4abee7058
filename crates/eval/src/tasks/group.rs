//! The word problem of a finite group: the product of a whole word.

use crate::task::{Form, Source, Task};

pub(super) const TASK: Task = Task {
    name: "group",
    version: 1.0,
    source: Source::Generated,
    form: Form::Targets {
        all_together: false,
    },
};
