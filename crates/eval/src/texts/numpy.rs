//! NumPy's arithmetic on arrays of scores, in single and double precision.
//!
//! sacreBLEU sums the counts of a resample in float32 and computes its score from these sums. By the
//! rules of NumPy 2 (NEP 50) a Python number takes the type of the array element that it is combined
//! with, so chrF stays in float32 throughout, and BLEU up to its logarithms. Every operation here is
//! done in f64 and rounded once, which for `+ - * /` gives exactly the float32 result.

/// The type of NumPy's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// float32.
    Single,
    /// float64, or Python's numbers.
    Double,
}

impl Precision {
    /// The nearest number of this type.
    pub(super) fn round(self, x: f64) -> f64 {
        match self {
            Self::Single => f64::from(x as f32),
            Self::Double => x,
        }
    }

    /// `np.sum` of a contiguous array: pairwise, with eight partial sums in blocks of 128.
    fn sum(self, values: &[f64]) -> f64 {
        let add = |a: f64, b: f64| self.round(a + b);
        match values.len() {
            0..8 => values.iter().fold(0.0, |sum, x| add(sum, *x)),
            8..=128 => {
                let (blocks, rest) = values.as_chunks::<8>();
                let mut r = blocks[0];
                for block in &blocks[1..] {
                    r = std::array::from_fn(|k| add(r[k], block[k]));
                }
                let low = add(add(r[0], r[1]), add(r[2], r[3]));
                let high = add(add(r[4], r[5]), add(r[6], r[7]));
                rest.iter().fold(add(low, high), |sum, x| add(sum, *x))
            }
            n => {
                let half = n / 2 - n / 2 % 8;
                add(self.sum(&values[..half]), self.sum(&values[half..]))
            }
        }
    }

    /// `np.mean`; not a number without values.
    pub(super) fn mean(self, values: &[f64]) -> f64 {
        self.round(self.sum(values) / values.len() as f64)
    }

    /// Python's `statistics.mean`: the exact mean, rounded once to f64 and then to this type.
    pub(super) fn exact_mean(self, values: &[f64]) -> f64 {
        // The sum as high + low, without the error of each addition.
        let (mut high, mut low) = (0.0, 0.0);
        for x in values {
            let sum = high + x;
            let added = sum - high;
            low += (high - (sum - added)) + (x - added);
            high = sum;
        }
        let n = values.len() as f64;
        let mean = (high + low) / n;
        let rest = (-mean).mul_add(n, high) + low;
        self.round(mean + rest / n)
    }
}

/// `np.percentile(sorted, 100 q)` by linear interpolation; not a number without values.
pub(super) fn percentile(sorted: &[f64], q: f64) -> f64 {
    if sorted.is_empty() {
        return f64::NAN;
    }
    let position = (sorted.len() - 1) as f64 * (100.0 * q / 100.0);
    let below = position.floor();
    let at = |index: f64| sorted[(index as usize).min(sorted.len() - 1)];
    let (a, b, t) = (at(below), at(below + 1.0), position - below);
    match t < 0.5 {
        true => a + (b - a) * t,
        false => b - (b - a) * (1.0 - t),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::texts::numpy_random::NumpyGenerator;

    // The expected values are NumPy 2.4's, by the expressions beside them.

    #[test]
    fn sums_and_means_are_pairwise() {
        // x = rng.choice(2**31, 1000).astype('f8') / 3, with rng = np.random.default_rng(3)
        let mut random = NumpyGenerator::new(3);
        let mut draw = || f64::from(random.choice(1 << 31)) / 3.0;
        let x: Vec<f64> = (0..1000).map(|_| draw()).collect();
        let single: Vec<f64> = x.iter().map(|x| Precision::Single.round(*x)).collect();
        for (n, mean, single_mean) in MEANS {
            assert_eq!(Precision::Double.mean(&x[..n]), mean, "{n}"); // x[:n].mean()
            // x[:n].astype('f4').mean()
            assert_eq!(Precision::Single.mean(&single[..n]), single_mean, "{n}");
        }
        // statistics.mean(x.tolist()), statistics.mean(x.astype('f4'))
        assert_eq!(Precision::Double.exact_mean(&x), EXACT.0);
        assert_eq!(Precision::Single.exact_mean(&single), EXACT.1);
        let mut sorted = x;
        sorted.sort_by(f64::total_cmp);
        for (q, expected) in PERCENTILES {
            assert_eq!(percentile(&sorted, q), expected); // np.percentile(x, 100 * q)
        }
        assert_eq!(percentile(&[7.0], 0.975), 7.0);
        assert!(percentile(&[], 0.5).is_nan());
    }

    const MEANS: [(usize, f64, f64); 8] = [
        (1, 580897577.3333334, 580897600.0),
        (7, 323684770.3333333, 323684800.0),
        (8, 335315151.2083333, 335315136.0),
        (100, 357692707.21333337, 357692704.0),
        (128, 353230751.453125, 353230752.0),
        (129, 355710960.4935401, 355710944.0),
        (257, 361517881.8274967, 361517856.0),
        (1000, 351197334.59, 351197344.0),
    ];
    const EXACT: (f64, f64) = (351197334.59, 351197344.0);
    const PERCENTILES: [(f64, f64); 3] = [
        ((1.0 - 0.95) / 2.0, 20147236.800000012),
        (0.5, 352784113.5),
        (1.0 - (1.0 - 0.95) / 2.0, 693596188.5416666),
    ];
}
