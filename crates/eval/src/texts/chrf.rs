//! chrF (Popovic, WMT 2015) and chrF++ (Popovic, WMT 2017) as sacreBLEU 2.6 computes them.
//!
//! ```text
//! chrF = 100 (1 + beta^2) P R / (beta^2 P + R)     beta = 2
//! ```
//!
//! P and R are the precision and recall of n-grams, averaged over the orders that both sides are long
//! enough for: characters of orders 1 to 6 without white space, and for chrF++ words of orders 1 and 2.
//! Of several references the one with the highest score counts, segment by segment.

use super::corpus_metric::CorpusMetric;
use super::ngrams::{CHARACTER_BITS, Vocabulary, WORD_BITS, ngrams, overlap};
use super::numpy::Precision;
use super::tokenize_13a::words;
use crate::python_text::is_space;

/// The highest order of character n-grams.
const CHARACTER_ORDER: usize = 6;
const BETA: f64 = 2.0;

/// The metric and the order of its word n-grams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chrf {
    word_order: usize,
}

impl Chrf {
    /// chrF: characters alone.
    pub const CHRF: Self = Self { word_order: 0 };
    /// chrF++: characters and up to two words.
    pub const CHRF_PLUS_PLUS: Self = Self { word_order: 2 };

    /// The sorted n-grams of each order, `[6 + word_order]`.
    fn ngrams<'a>(&self, text: &'a str, vocabulary: &mut Vocabulary<'a>) -> Vec<Vec<u128>> {
        let characters = text.chars().filter(|c| !is_space(*c)).map(u32::from);
        let characters: Vec<u32> = characters.collect();
        let mut orders: Vec<Vec<u128>> = (1..=CHARACTER_ORDER)
            .map(|n| ngrams(&characters, n, CHARACTER_BITS))
            .collect();
        if self.word_order > 0 {
            let words = vocabulary.ids(words(text).flat_map(separate_punctuation));
            orders.extend((1..=self.word_order).map(|n| ngrams(&words, n, WORD_BITS)));
        }
        orders
    }
}

impl CorpusMetric for Chrf {
    fn name(&self) -> &'static str {
        match self.word_order {
            0 => "chrF2",
            _ => "chrF2++",
        }
    }

    fn parameters(&self) -> String {
        let (nc, nw) = (CHARACTER_ORDER, self.word_order);
        format!("case:mixed|eff:yes|nc:{nc}|nw:{nw}|space:no")
    }

    fn statistics(&self, hypothesis: &str, references: &[&str]) -> Vec<u64> {
        let mut vocabulary = Vocabulary::default();
        let hypothesis = self.ngrams(hypothesis, &mut vocabulary);
        let (mut best, mut best_score) = (Vec::new(), -1.0);
        for reference in references {
            let reference = self.ngrams(reference, &mut vocabulary);
            let orders = hypothesis.iter().zip(&reference);
            let counts: Vec<u64> = orders
                .flat_map(|(hypothesis, reference)| {
                    // n-grams of an order that the reference is too short for do not count.
                    let found = if reference.is_empty() {
                        0
                    } else {
                        hypothesis.len()
                    };
                    let matches = overlap(hypothesis, reference);
                    [found as u64, reference.len() as u64, matches]
                })
                .collect();
            let sums: Vec<f64> = counts.iter().map(|count| *count as f64).collect();
            let score = self.score(&sums, Precision::Double);
            if score > best_score {
                (best, best_score) = (counts, score);
            }
        }
        best
    }

    /// Of `[n-grams of the hypotheses, n-grams of the references, matches]` for each order.
    fn score(&self, sums: &[f64], precision: Precision) -> f64 {
        let round = |x| precision.round(x);
        let (mut p, mut r, mut orders) = (0.0, 0.0, 0.0);
        for order in sums.as_chunks::<3>().0 {
            let [of_hypotheses, of_references, matches] = *order;
            if of_hypotheses > 0.0 && of_references > 0.0 {
                p = round(p + round(matches / of_hypotheses));
                r = round(r + round(matches / of_references));
                orders += 1.0;
            }
        }
        if p + r == 0.0 {
            return 0.0;
        }
        (p, r) = (round(p / orders), round(r / orders));
        let factor = BETA * BETA;
        let score = round(round((1.0 + factor) * p) * r);
        round(100.0 * round(score / round(round(factor * p) + r)))
    }

    fn resampled_type(&self) -> Precision {
        Precision::Single
    }
}

/// A word without the punctuation mark at its end, or else at its beginning, and the mark. At most one
/// is taken off, as in chrF++.py.
fn separate_punctuation(word: &str) -> impl Iterator<Item = &str> {
    let is_mark = |c: &char| c.is_ascii_punctuation();
    let (first, last) = (word.chars().next(), word.chars().next_back());
    // A first mark of several characters, so that one mark alone stays whole.
    let at = match (first, last) {
        (Some(first), _) if first.len_utf8() == word.len() => word.len(),
        (_, Some(last)) if is_mark(&last) => word.len() - 1,
        (Some(first), _) if is_mark(&first) => 1,
        _ => word.len(),
    };
    let (before, after) = word.split_at(at);
    [before, after].into_iter().filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_punctuation_mark_is_separated() {
        let separated = |word| separate_punctuation(word).collect::<Vec<_>>();
        assert_eq!(separated("(hi)"), ["(hi", ")"]);
        assert_eq!(separated("(hi"), ["(", "hi"]);
        assert_eq!(separated("."), ["."]);
        assert_eq!(separated(".."), [".", "."]);
        assert_eq!(separated("é。"), ["é。"]);
        assert_eq!(separated("你"), ["你"]);
    }

    #[test]
    fn counts_are_of_orders_that_the_reference_has() {
        // Characters "abc" against "ab": order 3 is missing in the reference.
        let counts = Chrf::CHRF.statistics("a bc", &["ab"]);
        assert_eq!(counts[..9], [3, 2, 2, 2, 1, 1, 0, 0, 0]);
        assert_eq!(counts.len(), 18);
        assert_eq!(Chrf::CHRF_PLUS_PLUS.statistics("", &[""]), [0; 24]);
        // P = (2/3 + 1/2) / 2, R = 1.
        let sums: Vec<f64> = counts.iter().map(|count| *count as f64).collect();
        let p = (2.0 / 3.0 + 0.5) / 2.0;
        let expected = 100.0 * 5.0 * p / (4.0 * p + 1.0);
        let score = Chrf::CHRF.score(&sums, Precision::Double);
        assert!((score - expected).abs() < 1e-12 * expected, "{score}");
    }

    #[test]
    fn the_best_reference_counts() {
        let of_both = Chrf::CHRF.statistics("abcdef", &["xyz", "abcdeg"]);
        assert_eq!(of_both, Chrf::CHRF.statistics("abcdef", &["abcdeg"]));
    }
}
