//! ARC, the questions that retrieval and co-occurrence get wrong (Clark et al., arXiv:1803.05457).

use super::arc_easy::FORM;
use crate::data::HubData;
use crate::data::Split::{Test, Train, Validation};
use crate::task::{Source, Task};

pub(super) const TASK: Task = Task {
    name: "arc_challenge",
    version: 1.0,
    source: Source::Hub(HubData {
        repository: "allenai/ai2_arc",
        subset: "ARC-Challenge",
        splits: &[Train, Validation, Test],
        adds: None,
    }),
    form: FORM,
};
