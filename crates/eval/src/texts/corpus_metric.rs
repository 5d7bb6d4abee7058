//! Metrics of a corpus whose score is a function of counts summed over its segments.

use super::numpy::Precision;

/// A metric as sacreBLEU defines one: counts of each segment, and a score of their sums.
///
/// The score of the sums is not the mean of the segments' scores. Sums are all that resampling needs.
pub trait CorpusMetric: Sync {
    /// The name that sacreBLEU prints, such as `chrF2++`.
    fn name(&self) -> &'static str;

    /// The parameters as sacreBLEU's signature has them, such as `case:mixed|eff:no|tok:13a|smooth:exp`.
    fn parameters(&self) -> String;

    /// The counts of one segment against its references, of which there is at least one. Their number
    /// is the same for all segments.
    fn statistics(&self, hypothesis: &str, references: &[&str]) -> Vec<u64>;

    /// The score, 0 to 100, of sums of counts that have the given type in NumPy.
    fn score(&self, sums: &[f64], precision: Precision) -> f64;

    /// The score of one segment by itself, 0 to 100, from its counts.
    fn segment_score(&self, counts: &[f64]) -> f64 {
        self.score(counts, Precision::Double)
    }

    /// The type that NumPy has for scores of float32 sums.
    fn resampled_type(&self) -> Precision;

    /// What sacreBLEU prints behind the score, if anything.
    fn detail(&self, sums: &[f64]) -> Option<String> {
        let _ = sums;
        None
    }
}

/// The sums over all segments, `[counts]`.
pub fn sums(statistics: &[Vec<u64>]) -> Vec<f64> {
    let Some(first) = statistics.first() else {
        return Vec::new();
    };
    let mut sums = vec![0; first.len()];
    for counts in statistics {
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    sums.into_iter().map(|sum: u64| sum as f64).collect()
}
