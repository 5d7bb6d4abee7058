//! Functions and the sentences that document them, as held out of the corpus `cargo-docs`.

use serde_json::{Map, Value};

use super::{ITEMS, row};
use crate::python_random::PythonRandom;

/// Pairs drawn evenly from all that are held out.
pub(super) fn summaries(pairs: &[(String, String)]) -> Vec<Map<String, Value>> {
    let mut chosen = PythonRandom::new(1)
        .sample(pairs.len(), ITEMS.min(pairs.len()))
        .unwrap_or_default();
    chosen.sort_unstable();
    let chosen = chosen.into_iter().map(|at| &pairs[at]);
    chosen
        .map(|(code, sentence)| {
            row([
                ("source", code.as_str().into()),
                ("target", sentence.as_str().into()),
            ])
        })
        .collect()
}
