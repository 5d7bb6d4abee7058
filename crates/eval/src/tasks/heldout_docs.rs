//! Functions of held-out crates: the sentence that documents them, by ROUGE and chrF.
//!
//! The task of CodeSearchNet's documentation (Husain et al., arXiv:1909.09436), on the pairs that the corpus
//! `cargo-docs` holds out. A sentence is short, so there is no least length.

use iiet_text::BeamSearch;

use crate::data::{references, source};
use crate::held_out::Generate;
use crate::task::{Form, Source, Task};
use crate::texts::TextMetric;

pub(super) const TASK: Task = Task {
    name: "heldout_docs",
    version: 1.0,
    source: Source::HeldOut(Generate::Summaries),
    form: Form::TargetText {
        source,
        references,
        search: BeamSearch {
            beam: 4,
            length_penalty: 1.0,
            min_tokens: 0,
            max_tokens: 64,
            no_repeat_ngram: 0,
            n_best: 1,
        },
        metrics: &[TextMetric::Rouge, TextMetric::Chrf],
    },
};
