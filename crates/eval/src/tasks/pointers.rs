//! Repeated application of a function in the context: the share of nodes whose result is right.

use crate::task::{Form, Source, Task};

pub(super) const TASK: Task = Task {
    name: "pointers",
    version: 1.0,
    source: Source::Generated,
    form: Form::Targets {
        all_together: false,
    },
};
