//! Bootstrap resampling of segments: confidence intervals, and the paired test of two systems (Koehn,
//! EMNLP 2004) as sacreBLEU 2.6 and rouge-score 0.1.2 compute them, with the same random numbers.
//!
//! ```text
//! interval   half the distance between the scores at 2.5 % and 97.5 % of the sorted resamples
//! p-value    (1 + #{ |d_i| - mean |d| > |d| }) / (resamples + 1)
//! ```
//!
//! d is the difference of the systems' scores, `d_i` that of their scores on the i-th resample.

use rayon::prelude::*;

use super::corpus_metric::CorpusMetric;
use super::numpy::{Precision, percentile};
use super::numpy_random::{NumpyGenerator, NumpyLegacyRandom};
use super::rouge::RougeScore;

/// Indices that are drawn before their resamples are summed in parallel.
const INDICES_AT_ONCE: usize = 1 << 22;

/// How segments are drawn again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resampling {
    /// How often. At least 1.
    pub samples: usize,
    /// The RNG seed.
    pub seed: u32,
}

impl Default for Resampling {
    /// sacreBLEU's: 1000 resamples, seed 12345.
    fn default() -> Self {
        let (samples, seed) = (1000, 12345);
        Self { samples, seed }
    }
}

/// An estimate of a score from its resamples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The mean of the resamples' scores.
    pub mean: f64,
    /// Half the width of the interval that holds 95 % of them.
    pub half_width: f64,
}

/// The scores of the resamples of a system, in the type that NumPy has for them.
#[derive(Clone, Debug, PartialEq)]
pub struct Resampled {
    scores: Vec<f64>,
    precision: Precision,
}

impl Resampling {
    /// A metric's scores of the resamples of `[segments, counts]`; none without segments.
    pub fn of_metric(&self, metric: &dyn CorpusMetric, statistics: &[Vec<u64>]) -> Resampled {
        // sacreBLEU converts the counts to float32 and adds them up in it.
        let rows = statistics.iter();
        let rows: Vec<Vec<f32>> = rows
            .map(|counts| counts.iter().map(|count| *count as f32).collect())
            .collect();
        let width = rows.first().map_or(0, Vec::len);
        let scores = self.draw(rows.len(), |indices| {
            let mut sums = vec![0.0; width];
            for at in indices {
                for (sum, x) in sums.iter_mut().zip(&rows[*at as usize]) {
                    *sum += x;
                }
            }
            let sums: Vec<f64> = sums.into_iter().map(f64::from).collect();
            metric.score(&sums, Precision::Single)
        });
        // A score of exactly zero is Python's own, and makes an array with it one of float64.
        let precision = match scores.contains(&0.0) {
            true => Precision::Double,
            false => metric.resampled_type(),
        };
        Resampled { scores, precision }
    }

    /// The means of the resamples of values, one for each segment. For metrics that are means over
    /// segments, such as ROUGE, which sacreBLEU does not have.
    pub fn of_mean(&self, values: &[f64]) -> Resampled {
        let scores = self.draw(values.len(), |indices| {
            let drawn = indices.iter().map(|at| values[*at as usize]);
            drawn.sum::<f64>() / indices.len() as f64
        });
        let precision = Precision::Double;
        Resampled { scores, precision }
    }

    /// The score of each resample's indices, `default_rng(seed).choice(n, (samples, n))`.
    fn draw(&self, n: usize, score: impl Fn(&[u32]) -> f64 + Sync) -> Vec<f64> {
        let segments = segments(n);
        if n == 0 {
            return Vec::new();
        }
        let mut random = NumpyGenerator::new(self.seed.into());
        let at_once = (INDICES_AT_ONCE / n).max(1);
        let mut scores = Vec::with_capacity(self.samples);
        while scores.len() < self.samples {
            let samples = at_once.min(self.samples - scores.len());
            let draw = |_| random.choice(segments);
            let indices: Vec<u32> = (0..samples * n).map(draw).collect();
            scores.par_extend(indices.par_chunks(n).map(&score));
        }
        scores
    }

    /// rouge-score's `BootstrapAggregator` after `np.random.seed(seed)`: the 2.5th, 50th and 97.5th
    /// percentiles of the means of the resamples, for each kind of ROUGE. NaN without segments.
    pub fn of_rouge<const KINDS: usize>(
        &self,
        scores: &[[RougeScore; KINDS]],
    ) -> [RougeInterval; KINDS] {
        let n = scores.len();
        let segments = segments(n);
        let mut random = NumpyLegacyRandom::new(self.seed);
        std::array::from_fn(|kind| {
            let mut means = [const { Vec::new() }; 3];
            for _ in 0..self.samples * n.min(1) {
                let mut sums = [0.0; 3];
                for _ in 0..n {
                    let drawn = scores[random.choice(segments) as usize][kind];
                    let drawn = [drawn.precision, drawn.recall, drawn.fmeasure];
                    for (sum, x) in sums.iter_mut().zip(drawn) {
                        *sum += x;
                    }
                }
                for (means, sum) in means.iter_mut().zip(sums) {
                    means.push(sum / n as f64);
                }
            }
            means
                .iter_mut()
                .for_each(|means| means.sort_by(f64::total_cmp));
            let delta = (1.0 - 0.95) / 2.0;
            let [low, mid, high] = [delta, 0.5, 1.0 - delta].map(|q| {
                let [precision, recall, fmeasure] = means.each_ref().map(|x| percentile(x, q));
                RougeScore {
                    precision,
                    recall,
                    fmeasure,
                }
            });
            RougeInterval { low, mid, high }
        })
    }
}

/// What rouge-score's aggregator gives for one kind of ROUGE.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RougeInterval {
    /// The 2.5th percentile.
    pub low: RougeScore,
    /// The median.
    pub mid: RougeScore,
    /// The 97.5th percentile.
    pub high: RougeScore,
}

impl Resampled {
    /// The scores, in the order of the draws.
    pub fn scores(&self) -> &[f64] {
        &self.scores
    }

    /// The interval that sacreBLEU gives for one system (`Score.estimate_ci`); `None` without scores.
    pub fn interval(&self) -> Option<Interval> {
        self.estimate(Precision::exact_mean)
    }

    /// The interval that sacreBLEU gives in a paired test. Its mean is `np.mean`, and not exact in the
    /// last bits.
    pub fn paired_interval(&self) -> Option<Interval> {
        self.estimate(Precision::mean)
    }

    fn estimate(&self, mean: fn(Precision, &[f64]) -> f64) -> Option<Interval> {
        let mut sorted = self.scores.clone();
        sorted.sort_by(f64::total_cmp);
        let outside = sorted.len() / 40;
        let (lower, upper) = (
            sorted.get(outside)?,
            sorted.get(sorted.len() - outside - 1)?,
        );
        Some(Interval {
            mean: mean(self.precision, &sorted),
            half_width: 0.5 * self.precision.round(upper - lower),
        })
    }

    /// The p-value of the hypothesis that this system and the baseline are equally good, from the
    /// absolute difference of their scores. Both are resampled alike.
    pub fn p_value(&self, baseline: &Self, difference: f64) -> f64 {
        let precision = match (self.precision, baseline.precision) {
            (Precision::Single, Precision::Single) => Precision::Single,
            _ => Precision::Double,
        };
        let pairs = self.scores.iter().zip(&baseline.scores);
        let differences: Vec<f64> = pairs.map(|(a, b)| precision.round(a - b).abs()).collect();
        let mean = precision.mean(&differences);
        let difference = precision.round(difference);
        let exceeds = |d: &&f64| precision.round(*d - mean) > difference;
        let exceeding = differences.iter().filter(exceeds).count();
        (exceeding as f64 + 1.0) / (differences.len() as f64 + 1.0)
    }
}

/// The number of segments in the RNG's type.
fn segments(n: usize) -> u32 {
    u32::try_from(n).expect("invariant: 2^32 segments with their counts do not fit into memory")
}
