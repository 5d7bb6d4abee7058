//! ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum (Lin, ACL 2004) as rouge-score 0.1.2 computes them.
//!
//! ```text
//! ROUGE-N      matched n-grams over n-grams of the candidate (precision) and the reference (recall)
//! ROUGE-L      length of the longest common subsequence over words of either
//! ROUGE-Lsum   for each sentence of the reference the words that it shares in order with any sentence
//!              of the candidate, each counted at most as often as it occurs in either text
//! F            2 P R / (P + R)
//! ```
//!
//! Words are runs of ASCII letters and digits after lowering; other letters separate words. Sentences
//! are lines. Of several references the one with the highest F counts, for each kind by itself.

use rayon::prelude::*;

use super::lcs::Columns;
use super::ngrams::{Vocabulary, WORD_BITS, ngrams, overlap};
use super::porter::stem;
use crate::error::EvalError;

/// The most words that a text may have: the tables of the longest common subsequence take a bit for
/// each pair of words, 128 MiB for two texts of this length.
pub const ROUGE_WORDS: usize = 1 << 15;

/// The kinds of ROUGE, as rouge-score names them.
pub const ROUGE_TYPES: [&str; 4] = ["rouge1", "rouge2", "rougeL", "rougeLsum"];

/// The metric and its one option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rouge {
    /// Stem words of more than three letters with the Porter stemmer.
    pub stemmer: bool,
}

/// Precision, recall and F, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RougeScore {
    /// Matches over what the candidate has.
    pub precision: f64,
    /// Matches over what the reference has.
    pub recall: f64,
    /// Their harmonic mean; 0 if both are 0.
    pub fmeasure: f64,
}

impl RougeScore {
    /// A text without words or n-grams has no matches; its length counts as 1.
    fn new(matches: usize, candidate: usize, reference: usize) -> Self {
        let precision = matches as f64 / candidate.max(1) as f64;
        let recall = matches as f64 / reference.max(1) as f64;
        let fmeasure = match precision + recall > 0.0 {
            true => 2.0 * precision * recall / (precision + recall),
            false => 0.0,
        };
        Self {
            precision,
            recall,
            fmeasure,
        }
    }
}

impl Rouge {
    /// The scores of a segment in the order of [`ROUGE_TYPES`].
    ///
    /// # Errors
    /// [`EvalError::TooManyWords`] for a text of more than [`ROUGE_WORDS`] words.
    pub fn score(
        &self,
        hypothesis: &str,
        references: &[&str],
    ) -> Result<[RougeScore; 4], EvalError> {
        let mut best = [None::<RougeScore>; 4];
        let hypothesis = self.lines(hypothesis)?;
        for reference in references {
            let found = compare(&hypothesis, &self.lines(reference)?);
            for (best, found) in best.iter_mut().zip(found) {
                // The first of equals, as NumPy's argmax.
                if best.is_none_or(|best| found.fmeasure > best.fmeasure) {
                    *best = Some(found);
                }
            }
        }
        Ok(best.map(Option::unwrap_or_default))
    }

    /// The scores of all segments of a text of this name, against `references[k][segment]`.
    ///
    /// # Errors
    /// As for [`Rouge::score`], with the text and the segment's number.
    pub(super) fn scores(
        &self,
        name: &str,
        hypotheses: &[String],
        references: &[&[String]],
    ) -> Result<Vec<[RougeScore; 4]>, EvalError> {
        let segments = hypotheses.par_iter().enumerate();
        let score = |(at, hypothesis): (usize, &String)| {
            let references: Vec<&str> = references.iter().map(|texts| &*texts[at]).collect();
            let found = self.score(hypothesis, &references);
            found.map_err(|source| EvalError::Segment {
                text: name.to_owned(),
                segment: at + 1,
                source: Box::new(source),
            })
        };
        segments.map(score).collect()
    }

    /// The words of each line that is not empty.
    fn lines(&self, text: &str) -> Result<Vec<Vec<String>>, EvalError> {
        let lines = text.split('\n').filter(|line| !line.is_empty());
        let lines: Vec<Vec<String>> = lines.map(|line| self.words(line)).collect();
        let words = lines.iter().map(Vec::len).sum();
        match words <= ROUGE_WORDS {
            true => Ok(lines),
            false => Err(EvalError::TooManyWords {
                found: words,
                allowed: ROUGE_WORDS,
            }),
        }
    }

    fn words(&self, line: &str) -> Vec<String> {
        let lowered = line.to_lowercase();
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let words = lowered
            .split(|c| !is_word(c))
            .filter(|word| !word.is_empty());
        let stemmed = |word: &str| match self.stemmer && word.len() > 3 {
            true => stem(word),
            false => word.to_owned(),
        };
        words.map(stemmed).collect()
    }
}

/// A text against one reference.
fn compare<'a>(hypothesis: &'a [Vec<String>], reference: &'a [Vec<String>]) -> [RougeScore; 4] {
    let mut vocabulary = Vocabulary::default();
    let mut number = |lines: &'a [Vec<String>]| -> Vec<Vec<u32>> {
        let words = lines.iter().map(|line| line.iter().map(String::as_str));
        words.map(|words| vocabulary.ids(words)).collect()
    };
    let (candidate_lines, reference_lines) = (number(hypothesis), number(reference));
    let (candidate, reference) = (candidate_lines.concat(), reference_lines.concat());
    let of_ngrams = |n| {
        let found = ngrams(&candidate, n, WORD_BITS);
        let expected = ngrams(&reference, n, WORD_BITS);
        let matches = overlap(&found, &expected) as usize;
        RougeScore::new(matches, found.len(), expected.len())
    };
    let of_words = |matches| RougeScore::new(matches, candidate.len(), reference.len());
    [
        of_ngrams(1),
        of_ngrams(2),
        of_words(Columns::new(&candidate).lcs_length(&reference)),
        of_words(summary_matches(&reference_lines, &candidate_lines)),
    ]
}

/// The matches of ROUGE-Lsum.
fn summary_matches(reference: &[Vec<u32>], candidate: &[Vec<u32>]) -> usize {
    let words = reference.iter().chain(candidate).flatten().max();
    let count = |lines: &[Vec<u32>]| {
        let mut counts = vec![0; words.map_or(0, |word| *word as usize + 1)];
        for word in lines.iter().flatten() {
            counts[*word as usize] += 1;
        }
        counts
    };
    let mut left = [count(reference), count(candidate)];
    let candidate: Vec<Columns> = candidate.iter().map(|line| Columns::new(line)).collect();
    let mut matches = 0;
    for line in reference {
        let mut shared = vec![false; line.len()];
        for other in &candidate {
            for at in other.lcs_positions(line) {
                shared[at] = true;
            }
        }
        for (word, _) in line.iter().zip(shared).filter(|(_, shared)| *shared) {
            let counts = left.each_mut().map(|counts| &mut counts[*word as usize]);
            if counts.iter().all(|count| **count > 0) {
                matches += 1;
                counts.into_iter().for_each(|count| *count -= 1);
            }
        }
    }
    matches
}
