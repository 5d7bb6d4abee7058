//! Means and ratios of means over items, with their standard errors: the one place that knows the
//! formula for a ratio, such as bits per byte, and for the difference of two models in it.
//!
//! A report averages over tasks: items are drawn in strata, one a task, and every task counts the
//! same. With `T` strata, `m` the mean over a stratum's `n` items and `v` their sample variance,
//!
//! ```text
//! mean    M = sum m / T                  se(M)^2 = sum v / n / T^2
//! ratio   R = sum m(x) / sum m(y)        se(R)^2 = sum v(x - R y) / n / (sum m(y))^2
//! ```
//!
//! The second is the delta method for paired items: x and y are two values of the same item, such as
//! two models' answers, or bits and bytes of a text (Cochran, *Sampling Techniques*, 1977, 6.4). Both
//! models stumble over the same items, so `x - R y` varies less than either; for `x = y` it is zero.
//! The difference of two models in bits per byte is such a ratio too, since both count the same bytes:
//! x are the differences in bits of each text, y its bytes.

use serde::Serialize;

/// A number and its standard error, where there are items enough to tell.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// Its standard error, where there is one.
    pub standard_error: Option<f64>,
}

/// The mean of the means of strata.
///
/// `None` without items.
#[cfg(feature = "model")]
pub(crate) fn mean_of_means(strata: &[Vec<f64>]) -> Option<Estimate> {
    let n = strata.len() as f64;
    (n > 0.0 && strata.iter().all(|items| !items.is_empty())).then(|| Estimate {
        value: sum_of_means(strata) / n,
        standard_error: variance_of_sum(strata).map(|variance| variance.sqrt() / n),
    })
}

/// The ratio of two sums of means over strata, x to y, items in pairs.
///
/// `None` if there are no items or their y are zero.
///
/// # Panics
/// If the items are not in pairs.
pub(crate) fn ratio_of_means(x: &[Vec<f64>], y: &[Vec<f64>]) -> Option<Estimate> {
    let denominator = sum_of_means(y);
    if x.iter().chain(y).any(Vec::is_empty) || denominator == 0.0 || y.is_empty() {
        return None;
    }
    let value = sum_of_means(x) / denominator;
    let residuals = paired(x, y, |x, y| x - value * y);
    Some(Estimate {
        value,
        standard_error: variance_of_sum(&residuals)
            .map(|variance| variance.sqrt() / denominator.abs()),
    })
}

/// A function of each pair of items, stratum by stratum.
///
/// # Panics
/// If the items are not in pairs.
pub(crate) fn paired(
    x: &[Vec<f64>],
    y: &[Vec<f64>],
    of: impl Fn(f64, f64) -> f64,
) -> Vec<Vec<f64>> {
    assert_eq!(x.len(), y.len(), "as many strata");
    let strata = x.iter().zip(y);
    strata
        .map(|(x, y)| {
            assert_eq!(x.len(), y.len(), "as many items in a stratum");
            x.iter().zip(y).map(|(x, y)| of(*x, *y)).collect()
        })
        .collect()
}

fn sum_of_means(strata: &[Vec<f64>]) -> f64 {
    strata.iter().map(|items| mean(items)).sum()
}

/// The variance of the sum of the strata's means; `None` if a stratum has one item alone.
fn variance_of_sum(strata: &[Vec<f64>]) -> Option<f64> {
    strata.iter().map(|items| variance_of_mean(items)).sum()
}

fn variance_of_mean(items: &[f64]) -> Option<f64> {
    let n = items.len() as f64;
    let mean = mean(items);
    let squares: f64 = items.iter().map(|x| (x - mean).powi(2)).sum();
    (items.len() > 1).then(|| squares / (n - 1.0) / n)
}

fn mean(items: &[f64]) -> f64 {
    items.iter().sum::<f64>() / items.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python_random::PythonRandom;

    fn close(found: Option<Estimate>, value: f64, standard_error: f64) {
        let found = found.unwrap();
        let error = found.standard_error.unwrap();
        assert!((found.value - value).abs() < 1e-12, "{found:?} {value}");
        assert!(
            (error - standard_error).abs() < 1e-12,
            "{found:?} {standard_error}"
        );
    }

    /// Four items of which a student gets two right and its teacher three, two of them the same.
    fn answers() -> (Vec<f64>, Vec<f64>) {
        (vec![1.0, 1.0, 0.0, 0.0], vec![1.0, 1.0, 1.0, 0.0])
    }

    #[test]
    fn a_ratio_and_its_error_worked_out_by_hand() {
        let (x, y) = answers();
        // R = 2/3; x - R y = 1/3, 1/3, -2/3, 0 of mean 0: squares 1/9 + 1/9 + 4/9 = 2/3, the
        // variance of the mean (2/3) / 3 / 4 = 1/18; over 3/4: sqrt(1/18) * 4/3.
        close(
            ratio_of_means(std::slice::from_ref(&x), std::slice::from_ref(&y)),
            2.0 / 3.0,
            (1.0f64 / 18.0).sqrt() * 4.0 / 3.0,
        );
        // A second task of two items, where both get the first right and the student the second:
        // R = (1/2 + 1) / (3/4 + 1/2) = 6/5. First task: -1/5, -1/5, -6/5, 0 of mean -2/5 gives
        // squares (1 + 1 + 16 + 4) / 25 = 22/25, over 12; second: -1/5 and 1 give 18/25, over 2.
        let (x, y) = (vec![x, vec![1.0, 1.0]], vec![y, vec![1.0, 0.0]]);
        let variance: f64 = 22.0 / 25.0 / 12.0 + 18.0 / 25.0 / 2.0;
        close(ratio_of_means(&x, &y), 1.2, variance.sqrt() / 1.25);
    }

    #[cfg(feature = "model")]
    #[test]
    fn a_mean_of_tasks_worked_out_by_hand() {
        let (x, y) = answers();
        // 1/2 and 3/4; variances of the means 1/3/4 and (3/4)/3/4.
        let variance: f64 = 1.0 / 12.0 + 1.0 / 16.0;
        close(
            mean_of_means(&[x.clone(), y.clone()]),
            0.625,
            variance.sqrt() / 2.0,
        );
        // Paired: -1 once in four, so -1/4 and (3/4)/3/4.
        close(
            mean_of_means(&paired(&[x], &[y], |x, y| x - y)),
            -0.25,
            0.25,
        );
    }

    #[test]
    fn equal_answers_retain_everything_for_certain() {
        let (x, _) = answers();
        let x = [x];
        close(ratio_of_means(&x, &x), 1.0, 0.0);
    }

    #[test]
    fn what_cannot_be_said_is_not() {
        let one = [vec![1.0]];
        let of_one = ratio_of_means(&one, &one).unwrap();
        assert_eq!((of_one.value, of_one.standard_error), (1.0, None));
        assert_eq!(ratio_of_means(&one, &[vec![0.0]]), None);
        assert_eq!(ratio_of_means(&[], &[]), None);
    }

    #[cfg(feature = "model")]
    #[test]
    fn there_is_no_mean_without_items() {
        assert_eq!(mean_of_means(&[]), None);
        assert_eq!(mean_of_means(&[vec![]]), None);
    }

    /// The delta method against a paired bootstrap over items.
    #[test]
    fn the_error_of_a_ratio_is_that_of_a_bootstrap() {
        let mut random = PythonRandom::new(5);
        // The teacher is right in 60 %, the student in 50 %, mostly of the same.
        let mut draw = || {
            let pairs = (0..400).map(|_| {
                let (difficulty, luck) = (random.random(), 0.2 * random.random());
                let right = |share: f64| f64::from(u8::from(difficulty < share));
                (right(0.4 + luck), right(0.6))
            });
            let (x, y): (Vec<f64>, Vec<f64>) = pairs.unzip();
            (x, y)
        };
        let (first, second) = (draw(), draw());
        let (x, y) = (vec![first.0, second.0], vec![first.1, second.1]);
        let found = ratio_of_means(&x, &y).unwrap();

        let mut random = PythonRandom::new(6);
        let ratios = (0..2000).map(|_| {
            let drawn: Vec<Vec<usize>> = x
                .iter()
                .map(|items| items.iter().map(|_| random.choice(items.len())).collect())
                .collect();
            let of = |strata: &[Vec<f64>]| -> Vec<Vec<f64>> {
                let strata = strata.iter().zip(&drawn);
                strata
                    .map(|(items, drawn)| drawn.iter().map(|at| items[*at]).collect())
                    .collect()
            };
            sum_of_means(&of(&x)) / sum_of_means(&of(&y))
        });
        let ratios: Vec<f64> = ratios.collect();
        let squares: f64 = ratios.iter().map(|r| (r - mean(&ratios)).powi(2)).sum();
        let bootstrap = (squares / 1999.0).sqrt();
        let error = found.standard_error.unwrap();
        assert!((error / bootstrap - 1.0).abs() < 0.1, "{error} {bootstrap}");
    }
}
