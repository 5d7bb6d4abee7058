//! Sums of several numbers: every digit must be right.

use crate::task::{Form, Source, Task};

pub(super) const TASK: Task = Task {
    name: "addition",
    version: 1.0,
    source: Source::Generated,
    form: Form::Targets { all_together: true },
};
