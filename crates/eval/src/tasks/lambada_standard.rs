//! LAMBADA as it was published (Paperno et al., arXiv:1606.06031): lower case, words apart from
//! punctuation.

use super::lambada_openai::FORM;
use crate::data::HubData;
use crate::data::Split::{Test, Validation};
use crate::task::{Source, Task};

pub(super) const TASK: Task = Task {
    name: "lambada_standard",
    version: 1.0,
    source: Source::Hub(HubData {
        repository: "cimec/lambada",
        subset: "plain_text",
        splits: &[Validation, Test],
        adds: None,
    }),
    form: FORM,
};
