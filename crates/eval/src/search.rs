//! Options of a beam search that are not left to a task.

use iiet_text::BeamSearch;
use serde_json::{Value, json};

/// Options in the place of a task's own, which `None` keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SearchOptions {
    /// See [`BeamSearch::beam`].
    pub beam: Option<usize>,
    /// See [`BeamSearch::length_penalty`].
    pub length_penalty: Option<f64>,
    /// See [`BeamSearch::min_tokens`].
    pub min_tokens: Option<usize>,
    /// See [`BeamSearch::max_tokens`].
    pub max_tokens: Option<usize>,
    /// See [`BeamSearch::no_repeat_ngram`].
    pub no_repeat_ngram: Option<usize>,
}

impl SearchOptions {
    /// The search with these options.
    pub fn apply(&self, search: BeamSearch) -> BeamSearch {
        BeamSearch {
            beam: self.beam.unwrap_or(search.beam),
            length_penalty: self.length_penalty.unwrap_or(search.length_penalty),
            min_tokens: self.min_tokens.unwrap_or(search.min_tokens),
            max_tokens: self.max_tokens.unwrap_or(search.max_tokens),
            no_repeat_ngram: self.no_repeat_ngram.unwrap_or(search.no_repeat_ngram),
            ..search
        }
    }
}

/// A search by the names that `transformers` has for its options.
pub(crate) fn to_json(search: &BeamSearch) -> Value {
    json!({
        "num_beams": search.beam,
        "length_penalty": search.length_penalty,
        "min_new_tokens": search.min_tokens,
        "max_new_tokens": search.max_tokens,
        "no_repeat_ngram_size": search.no_repeat_ngram,
    })
}

/// [`to_json`], for serde.
#[cfg(feature = "model")]
pub(crate) fn serialize<S: serde::Serializer>(
    search: &Option<BeamSearch>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let search = search.as_ref().map(to_json);
    serde::Serialize::serialize(&search, serializer)
}
