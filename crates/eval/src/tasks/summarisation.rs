//! Summarisation: what a sequence-to-sequence model makes of documents, by ROUGE with stemming.
//!
//! Decoded as the ODE Transformer is on CNN/DailyMail (Li et al., arXiv:2203.09176): beam 4, length penalty 2,
//! 55 to 140 tokens and no repeated trigram.

use iiet_text::BeamSearch;

use crate::data::{references, source};
use crate::task::{Form, Source, Task};
use crate::texts::TextMetric;

pub(super) const TASK: Task = Task {
    name: "summarisation",
    version: 1.0,
    source: Source::Pairs,
    form: Form::TargetText {
        source,
        references,
        search: BeamSearch {
            beam: 4,
            length_penalty: 2.0,
            min_tokens: 55,
            max_tokens: 140,
            no_repeat_ngram: 3,
            n_best: 1,
        },
        metrics: &[TextMetric::Rouge],
    },
};
