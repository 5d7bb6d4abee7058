//! BLEU (Papineni et al., ACL 2002) with the tokenizer 13a and exponential smoothing (method 3 of
//! Chen and Cherry, WMT 2014), as sacreBLEU 2.6 computes it (Post, WMT 2018).
//!
//! ```text
//! BLEU = BP exp(1/4 sum_{n=1..4} ln p_n)     p_n = 100 matched n-grams / n-grams of the hypotheses
//! BP   = min(1, exp(1 - r / c))              c, r: tokens of the hypotheses and the references
//! ```
//!
//! The k-th order without a match has `p_n = 100 / (2^k n-grams)`. An n-gram matches as often as it
//! occurs in the reference that has it most often; r counts the reference whose length is closest.

use super::corpus_metric::CorpusMetric;
use super::ngrams::{Vocabulary, WORD_BITS, ngrams, overlap, union};
use super::numpy::Precision;
use super::tokenize_13a::{tokenize_13a, words};
use crate::python_text::rstrip;

/// The highest order of n-grams.
const ORDER: usize = 4;

/// The metric and its one option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bleu {
    /// Average over the orders that the hypothesis is long enough for, and not over all four.
    /// sacreBLEU does so for single sentences.
    pub effective_order: bool,
}

/// What a score consists of.
#[derive(Clone, Debug, PartialEq)]
pub struct BleuScore {
    /// 0 to 100.
    pub score: f64,
    /// Smoothed precisions by order, 0 to 100.
    pub precisions: [f64; ORDER],
    /// `BP`, 0 to 1.
    pub brevity_penalty: f64,
    /// Tokens of the hypotheses.
    pub hypothesis_length: u64,
    /// Tokens of the closest references.
    pub reference_length: u64,
}

impl Bleu {
    /// The score of summed counts `[c, r, matches x 4, n-grams x 4]`; those that are missing, because
    /// there was no segment, count as 0.
    pub fn of_sums(&self, sums: &[f64], precision: Precision) -> BleuScore {
        let round = |x| precision.round(x);
        let mut counts = [0.0; 2 + 2 * ORDER];
        counts
            .iter_mut()
            .zip(sums)
            .for_each(|(count, sum)| *count = *sum);
        // sacreBLEU makes integers of the lengths alone.
        let (c, r) = (counts[0].trunc(), counts[1].trunc());
        let (matches, totals) = counts[2..].split_at(ORDER);
        let brevity_penalty = match () {
            () if c >= r => 1.0,
            () if c > 0.0 => (1.0 - r / c).exp(),
            () => 0.0,
        };
        let mut precisions = [0.0; ORDER];
        let (mut smoothing, mut orders) = (1.0, ORDER);
        let any_match = matches.iter().any(|count| *count != 0.0);
        for n in (0..ORDER).take_while(|n| any_match && totals[*n] != 0.0) {
            if self.effective_order {
                orders = n + 1;
            }
            precisions[n] = if matches[n] == 0.0 {
                smoothing *= 2.0;
                round(100.0 / round(smoothing * totals[n]))
            } else {
                round(round(100.0 * matches[n]) / totals[n])
            };
        }
        // sacreBLEU's logarithm of a precision that there is no n-gram for.
        let log = |p: &f64| if *p == 0.0 { -9_999_999_999.0 } else { p.ln() };
        let logs: f64 = precisions[..orders].iter().map(log).sum();
        BleuScore {
            score: match any_match {
                true => brevity_penalty * (logs / orders as f64).exp(),
                false => 0.0,
            },
            precisions,
            brevity_penalty,
            hypothesis_length: c as u64,
            reference_length: r as u64,
        }
    }
}

impl CorpusMetric for Bleu {
    fn name(&self) -> &'static str {
        "BLEU"
    }

    fn parameters(&self) -> String {
        let effective = if self.effective_order { "yes" } else { "no" };
        format!("case:mixed|eff:{effective}|tok:13a|smooth:exp")
    }

    fn statistics(&self, hypothesis: &str, references: &[&str]) -> Vec<u64> {
        let tokenized = |text: &&str| tokenize_13a(rstrip(text));
        let references: Vec<String> = references.iter().map(tokenized).collect();
        let hypothesis = tokenized(&hypothesis);
        let mut vocabulary = Vocabulary::default();
        let hypothesis = vocabulary.ids(words(&hypothesis));
        let references: Vec<Vec<u32>> = references
            .iter()
            .map(|reference| vocabulary.ids(words(reference)))
            .collect();
        // The shorter of two lengths that are equally close.
        let length = hypothesis.len();
        let lengths = references.iter().map(Vec::len);
        let closest = lengths.min_by_key(|r| (r.abs_diff(length), *r));
        let mut counts = vec![length as u64, closest.unwrap_or(0) as u64];
        counts.resize(2 + 2 * ORDER, 0);
        for n in 1..=ORDER {
            let found = ngrams(&hypothesis, n, WORD_BITS);
            let of_references = references
                .iter()
                .map(|reference| ngrams(reference, n, WORD_BITS))
                .reduce(|a, b| union(&a, &b))
                .unwrap_or_default();
            counts[1 + n] = overlap(&found, &of_references);
            counts[1 + ORDER + n] = found.len() as u64;
        }
        counts
    }

    fn score(&self, sums: &[f64], precision: Precision) -> f64 {
        self.of_sums(sums, precision).score
    }

    /// With effective order, as sacreBLEU scores sentences.
    fn segment_score(&self, counts: &[f64]) -> f64 {
        let effective_order = true;
        Self { effective_order }.score(counts, Precision::Double)
    }

    /// `math.exp` gives Python's own numbers.
    fn resampled_type(&self) -> Precision {
        Precision::Double
    }

    fn detail(&self, sums: &[f64]) -> Option<String> {
        let score = self.of_sums(sums, Precision::Double);
        let precisions = score.precisions.map(|p| format!("{p:.1}")).join("/");
        let (c, r) = (score.hypothesis_length, score.reference_length);
        let ratio = if r == 0 { 0.0 } else { c as f64 / r as f64 };
        Some(format!(
            "{precisions} (BP = {:.3} ratio = {ratio:.3} hyp_len = {c} ref_len = {r})",
            score.brevity_penalty
        ))
    }
}

/// Whether the hypotheses look tokenized, which lowers BLEU: a hundred of them or more end in a
/// period after a space. sacreBLEU warns of it.
pub fn look_tokenized(hypotheses: &[String]) -> bool {
    hypotheses
        .iter()
        .filter(|text| text.ends_with(" ."))
        .count()
        >= 100
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(hypothesis: &str, references: &[&str]) -> Vec<u64> {
        Bleu::default().statistics(hypothesis, references)
    }

    #[test]
    fn matches_are_clipped_by_the_references_together() {
        // "the" is twice in the first reference and once in the second, "a" only in the second.
        let counts = statistics("the the the a", &["the the cat", "a the"]);
        assert_eq!(counts, [4, 3, 3, 1, 0, 0, 4, 3, 2, 1]);
        // Lengths 3 and 5 are equally close to 4.
        assert_eq!(statistics("a b c d", &["a b c d e", "a b c"])[..2], [4, 3]);
    }

    #[test]
    fn scores_are_those_of_the_formula() {
        let bleu = Bleu::default();
        // p = 100 3/4, 100 1/3, 100 / (2 * 2), 100 / (4 * 1), no brevity penalty.
        let score = bleu.of_sums(&[4., 3., 3., 1., 0., 0., 4., 3., 2., 1.], Precision::Double);
        let expected = (75.0f64 * 100.0 / 3.0 * 25.0 * 25.0).powf(0.25);
        assert!(
            (score.score - expected).abs() < 1e-12 * expected,
            "{score:?}"
        );
        let short = bleu.of_sums(&[1., 3., 1., 0., 0., 0., 1., 0., 0., 0.], Precision::Double);
        assert_eq!((short.score, short.brevity_penalty), (0.0, (-2.0f64).exp()));
        let effective = Bleu {
            effective_order: true,
        };
        let short = effective.of_sums(&[1., 3., 1., 0., 0., 0., 1., 0., 0., 0.], Precision::Double);
        assert!((short.score - 100.0 * (-2.0f64).exp()).abs() < 1e-12);
        assert_eq!(bleu.of_sums(&[0.0; 10], Precision::Double).score, 0.0);
        assert_eq!(bleu.of_sums(&[], Precision::Double).score, 0.0);
    }
}
