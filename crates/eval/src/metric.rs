//! Metrics over items, their standard errors, and the paired difference of two models.
//!
//! ```text
//! mean              m = (1/n) sum x_i              se = sd(x) / sqrt(n), sd with n - 1
//! perplexity        exp(-m), x_i = log p_i         se = sd of 100,000 bootstrap samples
//! word, byte ppl    exp(-sum x_i / sum w_i)        none, as in the harness
//! bits per byte     -sum x_i / sum w_i / ln 2      none
//! solved            see `Values::Solved`           none
//! texts             see `TextValues`               sd of sacreBLEU's 1000 bootstrap samples
//! difference        D = sum d_i / sum w_i          sd(d_i - D w_i) / sqrt(n) / mean(w_i), d paired
//! ```
//!
//! All but the last three are `lm_eval.api.metrics`' definitions, the bootstrap's random numbers included.

use std::borrow::Cow;
use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::estimate::ratio_of_means;
use crate::python_random::PythonRandom;
use crate::target_text::TextValues;
use crate::texts::TextScore;

/// Bootstrap samples, and how many of them share a generator.
const BOOTSTRAP: (u32, usize) = (100, 1000);

/// A metric's name in results, its value, and its values by item.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Its name in results.
    pub name: Cow<'static, str>,
    /// The aggregate of the items' values.
    pub value: f64,
    /// Its standard error, where there is one.
    pub standard_error: Option<f64>,
    /// The items' values.
    pub values: Values,
    /// Of a score of texts: signature and confidence interval.
    pub text: Option<TextScore>,
}

impl Metric {
    /// Aggregates, bootstrap included.
    pub fn new(name: impl Into<Cow<'static, str>>, values: Values) -> Self {
        Self {
            name: name.into(),
            value: values.aggregate(),
            standard_error: values.standard_error(),
            values,
            text: None,
        }
    }

    /// Whether the items determine the value: not where the standard error of a perplexity exceeds it.
    /// There a few items of very low probability decide on everything.
    pub fn is_determined(&self) -> bool {
        match (&self.values, self.standard_error) {
            (Values::Perplexity(_), Some(error)) => error <= self.value,
            _ => true,
        }
    }
}

/// What an item contributes, and how contributions become one number.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// The mean of the values, such as 0 and 1 for accuracy; more is better.
    Mean(Vec<f64>),
    /// `exp(-mean)` of log-likelihoods in nats.
    Perplexity(Vec<f64>),
    /// `exp(-sum x / sum w)` of log-likelihoods and weights, such as counts of words.
    WeightedPerplexity(Vec<(f64, u64)>),
    /// `-sum x / sum w / ln 2`.
    BitsPerByte(Vec<(f64, u64)>),
    /// The greatest difficulty up to which all have a mean of at least 0.9, of difficulties and
    /// accuracies; 0 if the least has not. More is better.
    Solved(Vec<(usize, f64)>),
    /// A score of texts against references; more is better.
    Texts(TextValues),
}

/// How much one model differs from another on the same items.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Second minus first, in [`Values::paired_unit`].
    pub value: f64,
    /// Of the mean of the items' differences, or of their ratio to the items' weights.
    pub standard_error: Option<f64>,
}

impl Values {
    /// Items.
    pub fn len(&self) -> usize {
        match self {
            Self::Mean(values) | Self::Perplexity(values) => values.len(),
            Self::WeightedPerplexity(values) | Self::BitsPerByte(values) => values.len(),
            Self::Solved(values) => values.len(),
            Self::Texts(values) => values.len(),
        }
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a greater number is a better one.
    pub fn higher_is_better(&self) -> bool {
        matches!(self, Self::Mean(_) | Self::Solved(_) | Self::Texts(_))
    }

    /// The metric; not a number without items.
    pub fn aggregate(&self) -> f64 {
        match self {
            Self::Mean(values) => mean(values),
            Self::Perplexity(values) => (-mean(values)).exp(),
            Self::WeightedPerplexity(values) => (-weighted_mean(values)).exp(),
            Self::BitsPerByte(values) => -weighted_mean(values) / std::f64::consts::LN_2,
            Self::Solved(values) => solved(values),
            Self::Texts(values) => values.score(),
        }
    }

    /// Its standard error, where the harness gives one: for two items or more.
    pub fn standard_error(&self) -> Option<f64> {
        match self {
            Self::Mean(values) if values.len() > 1 => Some(error_of_mean(values)),
            Self::Perplexity(values) if values.len() > 1 => Some(bootstrap(values)),
            Self::Texts(values) => values.standard_error(),
            _ => None,
        }
    }

    /// What a [`Difference`] is in: logarithms of perplexities, for those are means over items.
    pub fn paired_unit(&self) -> &'static str {
        match self {
            Self::Mean(_) | Self::Solved(_) | Self::Texts(_) => "",
            Self::Perplexity(_) => "nats/item",
            Self::WeightedPerplexity(_) => "nats/unit",
            Self::BitsPerByte(_) => "bits/byte",
        }
    }

    /// How probable so great a difference from the second is by chance: of scores of texts, by paired bootstrap
    /// resampling.
    pub fn p_value(&self, second: &Self) -> Option<f64> {
        match (self, second) {
            (Self::Texts(a), Self::Texts(b)) => a.p_value(b),
            _ => None,
        }
    }

    /// `second - self`, item by item; `None` if the items are not the same in kind, number and weight.
    ///
    /// A weighted metric is a ratio of two sums over items, `sum x / sum w`. So is its difference, and
    /// both have the standard error of such a ratio (the delta method, `estimate.rs`): a long text
    /// weighs more in the numerator and in the denominator.
    pub fn difference(&self, second: &Self) -> Option<Difference> {
        let subtract = |a: &[f64], b: &[f64]| -> Option<Vec<f64>> {
            let same = a.len() == b.len() && !a.is_empty();
            same.then(|| a.iter().zip(b).map(|(a, b)| b - a).collect())
        };
        let (differences, weights, scale) = match (self, second) {
            (Self::Mean(a), Self::Mean(b)) => (subtract(a, b)?, None, 1.0),
            (Self::Perplexity(a), Self::Perplexity(b)) => (subtract(a, b)?, None, -1.0),
            (Self::WeightedPerplexity(a), Self::WeightedPerplexity(b))
            | (Self::BitsPerByte(a), Self::BitsPerByte(b)) => {
                let (a, weights): (Vec<f64>, Vec<u64>) = a.iter().copied().unzip();
                let (b, others): (Vec<f64>, Vec<u64>) = b.iter().copied().unzip();
                if weights != others {
                    return None;
                }
                let scale = match self {
                    Self::BitsPerByte(_) => -1.0 / std::f64::consts::LN_2,
                    _ => -1.0,
                };
                let weights = weights.iter().map(|weight| *weight as f64).collect();
                (subtract(&a, &b)?, Some(weights), scale)
            }
            (Self::Texts(a), Self::Texts(b)) => return a.difference(b),
            (Self::Solved(a), Self::Solved(b)) => {
                let difficulties = |values: &[(usize, f64)]| -> Vec<usize> {
                    values.iter().map(|(difficulty, _)| *difficulty).collect()
                };
                return (difficulties(a) == difficulties(b)).then(|| Difference {
                    value: solved(b) - solved(a),
                    standard_error: None,
                });
            }
            _ => return None,
        };
        let weights = weights.unwrap_or_else(|| vec![1.0; differences.len()]);
        // Texts of nothing but white space have no words.
        let undefined = weights.iter().sum::<f64>() == 0.0;
        if undefined {
            return Some(Difference {
                value: f64::NAN,
                standard_error: None,
            });
        }
        let difference = ratio_of_means(&[differences], &[weights])?;
        Some(Difference {
            value: scale * difference.value,
            standard_error: difference.standard_error.map(|error| scale.abs() * error),
        })
    }
}

/// The share from which on a difficulty is solved.
const SOLVED: f64 = 0.9;

fn solved(values: &[(usize, f64)]) -> f64 {
    let mut by_difficulty: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for (difficulty, value) in values {
        by_difficulty.entry(*difficulty).or_default().push(*value);
    }
    let is_solved = |values: &[f64]| mean(values) >= SOLVED;
    let solved = by_difficulty
        .iter()
        .take_while(|(_, values)| is_solved(values));
    solved
        .last()
        .map_or(0.0, |(difficulty, _)| *difficulty as f64)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn weighted_mean(values: &[(f64, u64)]) -> f64 {
    let nats: f64 = values.iter().map(|(nats, _)| nats).sum();
    let weight: u64 = values.iter().map(|(_, weight)| weight).sum();
    nats / weight as f64
}

/// The standard deviation of a sample, with n - 1.
pub(crate) fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

fn error_of_mean(values: &[f64]) -> f64 {
    deviation(values) / (values.len() as f64).sqrt()
}

/// The standard deviation of `exp(-mean)` over samples drawn with replacement; the i-th thousand of
/// them from `Random(i)`.
fn bootstrap(values: &[f64]) -> f64 {
    let (generators, samples) = BOOTSTRAP;
    let perplexities: Vec<f64> = (0..generators)
        .into_par_iter()
        .flat_map_iter(|seed| {
            let mut random = PythonRandom::new(seed);
            (0..samples).map(move |_| {
                let draw = |_| values[random.choice(values.len())];
                let sum: f64 = (0..values.len()).map(draw).sum();
                (-sum / values.len() as f64).exp()
            })
        })
        .collect();
    deviation(&perplexities)
}

/// The index of the largest value, the first among equals; as in NumPy the first NaN, if there is one.
pub(crate) fn argmax(values: impl IntoIterator<Item = f64>) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (at, value) in values.into_iter().enumerate() {
        if value.is_nan() {
            return at;
        }
        if value > best.1 {
            best = (at, value);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() <= 1e-11 * expected.abs(),
            "{found} {expected}"
        );
    }

    // The expected values are lm-evaluation-harness 0.4.13's, by the expressions beside them.

    #[test]
    fn means_and_their_errors() {
        let acc = Values::Mean(vec![1.0, 0.0, 1.0, 1.0, 0.0]);
        close(acc.aggregate(), MEAN); // mean(xs)
        close(acc.standard_error().unwrap(), MEAN_STDERR); // mean_stderr(xs)
        assert_eq!(Values::Mean(vec![1.0]).standard_error(), None);
    }

    #[test]
    fn perplexities_and_their_errors() {
        let nats = vec![-1.5, -0.25, -3.0, -2.0, -7.5, -0.5];
        let perplexity = Values::Perplexity(nats);
        close(perplexity.aggregate(), PERPLEXITY); // perplexity(xs)
        // bootstrap_stderr(perplexity, xs, 100000)
        close(perplexity.standard_error().unwrap(), BOOTSTRAP_STDERR);
        let weighted = vec![(-100.0, 30), (-55.5, 11), (-1.0, 1)];
        let words = Values::WeightedPerplexity(weighted.clone());
        close(words.aggregate(), WEIGHTED); // weighted_perplexity(items)
        assert_eq!(words.standard_error(), None);
        close(Values::BitsPerByte(weighted).aggregate(), BITS); // bits_per_byte(items)
    }

    #[test]
    fn a_perplexity_with_an_error_above_it_is_not_determined() {
        let determined = |nats: Vec<f64>| {
            let metric = Metric::new("perplexity", Values::Perplexity(nats));
            metric.is_determined()
        };
        assert!(determined(vec![-1.5, -1.25, -3.0, -2.0, -2.5, -0.5]));
        assert!(!determined(vec![-1.5, -0.25, -3.0, -2.0, -70.5, -0.5]));
    }

    #[test]
    fn differences_are_paired() {
        let a = Values::Mean(vec![1.0, 0.0, 1.0, 0.0]);
        let b = Values::Mean(vec![1.0, 1.0, 1.0, 0.0]);
        let difference = a.difference(&b).unwrap();
        close(difference.value, 0.25);
        // Differences 0, 1, 0, 0: variance (3/16 * 4) / 3 = 1/4, over n = 4.
        close(difference.standard_error.unwrap(), 0.25);
        // 10 nats less in 4 + 6 bytes: 1 nat a byte. 2 and 8 of them are 2 less and 2 more than that:
        // residuals of mean 0 and variance 8, sqrt(8 / 2) over the mean of 5 bytes.
        let a = Values::BitsPerByte(vec![(-10.0, 4), (-20.0, 6)]);
        let b = Values::BitsPerByte(vec![(-8.0, 4), (-12.0, 6)]);
        let difference = a.difference(&b).unwrap();
        let ln_2 = std::f64::consts::LN_2;
        close(difference.value, -1.0 / ln_2);
        close(difference.standard_error.unwrap(), 2.0 / 5.0 / ln_2);
        assert_eq!(a.difference(&Values::Mean(vec![1.0, 2.0])), None);
        let other = Values::BitsPerByte(vec![(-8.0, 4), (-12.0, 5)]);
        assert_eq!(a.difference(&other), None);
    }

    /// Five documents of a kilobyte and one of 111, in each of which the second model is better by 0.27
    /// to 0.50 bits per byte. With the bytes taken as fixed this was -0.338 +- 0.317, undecided.
    #[test]
    fn a_long_text_among_short_ones_does_not_blur_the_difference() {
        let bytes = [1000, 1000, 1000, 1000, 1000, 111_000];
        let better = [0.27, 0.31, 0.50, 0.44, 0.29, 0.337];
        let nats = |bits: f64, bytes: u64| -bits * std::f64::consts::LN_2 * bytes as f64;
        let first: Vec<(f64, u64)> = bytes.iter().map(|n| (nats(2.5, *n), *n)).collect();
        let second = bytes.iter().zip(better);
        let second = second.map(|(n, better)| (nats(2.5 - better, *n), *n));
        let second: Vec<(f64, u64)> = second.collect();
        let found = |a: Values, b: Values| {
            let found = a.difference(&b).unwrap();
            (found.value, found.standard_error.unwrap())
        };
        let (bits, error) = found(
            Values::BitsPerByte(first.clone()),
            Values::BitsPerByte(second.clone()),
        );
        // By NumPy: d = better * n; D = d.sum() / n.sum(); r = d - D * n;
        // r.std(ddof=1) / 6**0.5 / n.mean()
        close(bits, BITS_DIFFERENCE);
        close(error, BITS_ERROR);
        let (nats, error) = found(
            Values::WeightedPerplexity(first),
            Values::WeightedPerplexity(second),
        );
        close(nats, BITS_DIFFERENCE * std::f64::consts::LN_2);
        close(error, BITS_ERROR * std::f64::consts::LN_2);
    }

    #[test]
    fn solved_is_the_end_of_an_unbroken_row() {
        let tenths = |difficulty: usize, right: usize| -> Vec<(usize, f64)> {
            let value = |i| f64::from(u8::from(i < right));
            (0..10).map(|i| (difficulty, value(i))).collect()
        };
        let values = |rights: [usize; 3]| {
            let of = rights.into_iter().zip([4, 8, 16]);
            Values::Solved(of.flat_map(|(right, at)| tenths(at, right)).collect())
        };
        for (rights, expected) in [
            ([10, 9, 8], 8.0),
            ([10, 8, 10], 4.0),
            ([8, 10, 10], 0.0),
            ([9, 9, 9], 16.0),
        ] {
            assert_eq!(values(rights).aggregate(), expected, "{rights:?}");
        }
        assert_eq!(values([10, 9, 8]).standard_error(), None);
        let difference = values([10, 9, 8]).difference(&values([9, 9, 9])).unwrap();
        assert_eq!((difference.value, difference.standard_error), (8.0, None));
    }

    #[test]
    fn argmax_takes_the_first() {
        assert_eq!(argmax([1.0, 3.0, 3.0]), 1);
        assert_eq!(argmax([f64::NEG_INFINITY; 2]), 0);
        assert_eq!(argmax([1.0, f64::NAN, 3.0]), 1); // np.argmax([1, nan, 3])
    }

    const MEAN: f64 = 0.6;
    const MEAN_STDERR: f64 = 0.24494897427831783;
    const PERPLEXITY: f64 = 11.685319768402522;
    const BOOTSTRAP_STDERR: f64 = 36.177673235208005;
    const WEIGHTED: f64 = 41.52063265887965;
    const BITS: f64 = 5.375756521407685;
    const BITS_DIFFERENCE: f64 = -0.33807758620689654;
    const BITS_ERROR: f64 = 0.0022869724192416878;
}
