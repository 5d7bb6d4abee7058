//! Translation: what a sequence-to-sequence model makes of sentences, by BLEU and chrF.
//!
//! Decoded as the ODE Transformer is on WMT14 (Li et al., arXiv:2203.09176): beam 4, length penalty 0.6.

use iiet_text::BeamSearch;

use crate::data::{references, source};
use crate::task::{Form, Source, Task};
use crate::texts::TextMetric;

pub(super) const TASK: Task = Task {
    name: "translation",
    version: 1.0,
    source: Source::Pairs,
    form: Form::TargetText {
        source,
        references,
        search: BeamSearch {
            beam: 4,
            length_penalty: 0.6,
            min_tokens: 0,
            max_tokens: 256,
            no_repeat_ngram: 0,
            n_best: 1,
        },
        metrics: &[TextMetric::Bleu, TextMetric::Chrf],
    },
};
