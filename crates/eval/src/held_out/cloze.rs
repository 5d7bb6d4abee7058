//! Passages up to an identifier that occurred before, as in LAMBADA, for source text.
//!
//! The candidates for an answer are the eight distinct identifiers that occurred last. An item's
//! answer has a rank among them by recency and one by length; both ranks are distributed evenly and
//! independently over the items. So a strategy that always names the third last identifier, or the
//! longest, is correct once in eight.

use std::collections::HashMap;

use iiet_data::HeldOutFile;
use rayon::prelude::*;
use serde_json::{Map, Value};

use super::{ITEMS, line_starts, row};
use crate::error::EvalError;
use crate::python_random::PythonRandom;

/// Number of identifiers among which a guess chooses.
pub(super) const CANDIDATES: usize = 8;

/// Number of items with the same ranks by recency and by length.
const OF_A_KIND: usize = ITEMS / (CANDIDATES * CANDIDATES);

/// Bytes of context, from the beginning of a line.
const CONTEXT: std::ops::RangeInclusive<usize> = 512..=768;

/// The minimum distance in bytes between two answers in a file.
const APART: usize = 768;

/// Shorter identifiers are rarely meaningful names.
const LETTERS: usize = 4;

/// Words of Rust and of comments that do not refer to the passage.
const COMMON: &[&str] = &[
    "abstract", "also", "async", "await", "become", "been", "break", "const", "continue", "crate",
    "does", "dyn", "else", "enum", "extern", "false", "final", "from", "have", "impl", "into",
    "loop", "macro", "match", "must", "move", "only", "override", "self", "Self", "should",
    "static", "struct", "super", "than", "that", "their", "them", "then", "there", "these", "they",
    "this", "trait", "true", "type", "typeof", "unsafe", "unsized", "used", "virtual", "were",
    "what", "when", "where", "which", "while", "will", "with", "would", "yield", "your",
];

/// The range of an identifier in a text.
#[derive(Clone, Copy)]
struct Word<'a> {
    at: usize,
    text: &'a str,
}

/// A possible item.
struct Possible<'a> {
    file: &'a HeldOutFile,
    /// The start of its context, the position of the space before the answer, and the end of the
    /// answer.
    from: usize,
    space: usize,
    end: usize,
    recency: usize,
    length: usize,
}

/// Items with equal numbers of each kind, drawn evenly from all of the held-out text.
///
/// # Errors
/// None; the signature is that of [`Generate`](super::Generate).
pub fn cloze(files: &[HeldOutFile]) -> Result<Vec<Map<String, Value>>, EvalError> {
    let possible: Vec<Possible<'_>> = files.par_iter().flat_map_iter(of_file).collect();
    let mut left = [[OF_A_KIND; CANDIDATES]; CANDIDATES];
    let mut taken: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut chosen = Vec::new();
    let order = PythonRandom::new(2).sample(possible.len(), possible.len());
    for at in order.unwrap_or_default() {
        let item = &possible[at];
        let left = &mut left[item.recency][item.length];
        let others = taken.entry(item.file.place.as_str()).or_default();
        if *left > 0 && others.iter().all(|other| other.abs_diff(item.end) >= APART) {
            *left -= 1;
            others.push(item.end);
            chosen.push(at);
        }
    }
    chosen.sort_unstable();
    let chosen = chosen.into_iter().map(|at| &possible[at]);
    Ok(chosen
        .map(|item| {
            let text = &item.file.text;
            row([
                ("context", text[item.from..item.space].into()),
                ("target", text[item.space..item.end].into()),
                ("recency", item.recency.into()),
                ("length", item.length.into()),
                ("file", item.file.place.as_str().into()),
            ])
        })
        .collect())
}

fn of_file(file: &HeldOutFile) -> Vec<Possible<'_>> {
    let text = file.text.as_str();
    let words = words(text);
    let starts = line_starts(text);
    let mut possible = Vec::new();
    for (number, answer) in words.iter().enumerate() {
        let Some(space) = answer.at.checked_sub(1) else {
            continue;
        };
        // The continuation is a space and a word for every tokenizer, as in LAMBADA.
        let clean = text.as_bytes()[space] == b' '
            && space > 0
            && !text.as_bytes()[space - 1].is_ascii_whitespace();
        let line = starts.partition_point(|start| start + CONTEXT.end() < space);
        let Some(&from) = starts.get(line) else {
            continue;
        };
        if !clean || space.saturating_sub(from) < *CONTEXT.start() {
            continue;
        }
        let before = words[..number].iter().rev();
        let mut recent: Vec<&str> = Vec::with_capacity(CANDIDATES);
        for word in before.take_while(|word| word.at >= from) {
            if recent.len() < CANDIDATES && !recent.contains(&word.text) {
                recent.push(word.text);
            }
        }
        let recency = recent.iter().position(|word| *word == answer.text);
        let (CANDIDATES, Some(recency)) = (recent.len(), recency) else {
            continue;
        };
        let shorter =
            |(at, word): &(usize, &&str)| (word.len(), *at) < (answer.text.len(), recency);
        possible.push(Possible {
            file,
            from,
            space,
            end: answer.at + answer.text.len(),
            recency,
            length: recent.iter().enumerate().filter(shorter).count(),
        });
    }
    possible
}

/// The identifiers of a text except short and common words.
fn words(text: &str) -> Vec<Word<'_>> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut words = Vec::new();
    let mut rest = 0;
    while let Some(start) = text[rest..].find(is_part).map(|at| rest + at) {
        let end = text[start..].find(|c| !is_part(c));
        rest = end.map_or(text.len(), |end| start + end);
        let word = &text[start..rest];
        let letters = word.len() >= LETTERS && !word.starts_with(|c: char| c.is_ascii_digit());
        // A letter of another script continues the word.
        let whole = !text[rest..].starts_with(char::is_alphanumeric)
            && !text[..start].ends_with(char::is_alphanumeric);
        if letters && whole && !COMMON.contains(&word) {
            words.push(Word {
                at: start,
                text: word,
            });
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_whole_and_exclude_common_words() {
        let text = "let naïve_x = self.word_1 + 1234 - other::Thing; été with word";
        let found: Vec<&str> = words(text).iter().map(|word| word.text).collect();
        assert_eq!(found, ["word_1", "other", "Thing", "word"]);
    }
}
