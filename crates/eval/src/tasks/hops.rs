//! Repeated induction: the share of places whose result is right.

use crate::task::{Form, Source, Task};

pub(super) const TASK: Task = Task {
    name: "hops",
    version: 1.0,
    source: Source::Generated,
    form: Form::Targets {
        all_together: false,
    },
};
