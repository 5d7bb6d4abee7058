//! The deviation of a device, and its tolerance.

use std::fmt;

use burn::tensor::Tensor;

use crate::ConformanceError;

/// One comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The model of the comparison.
    pub case: String,
    /// The quantity compared.
    pub what: &'static str,
    /// The largest deviation; NaN if the device's result is NaN.
    pub deviation: f64,
    /// The tolerance.
    pub tolerance: f64,
}

impl Finding {
    /// Whether the deviation is within the tolerance.
    pub fn holds(&self) -> bool {
        // False for NaN.
        self.deviation <= self.tolerance
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            case,
            what,
            deviation,
            tolerance,
        } = self;
        let verdict = if self.holds() { "holds" } else { "FAILS" };
        write!(
            f,
            "{case}: {what} deviates by {deviation:.1e} of {tolerance:.0e}: {verdict}"
        )
    }
}

/// The maximum of some deviations; NaN if one of them is NaN.
pub(crate) fn largest(deviations: impl IntoIterator<Item = f64>) -> f64 {
    let worse = |most: f64, next: f64| {
        if next > most || next.is_nan() {
            next
        } else {
            most
        }
    };
    deviations.into_iter().fold(0.0, |most, next| {
        if most.is_nan() {
            most
        } else {
            worse(most, next)
        }
    })
}

/// The largest difference between entries; infinite if the lengths differ.
pub(crate) fn difference(found: &[f32], expected: &[f32]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let pairs = found.iter().zip(expected);
    largest(pairs.map(|(a, b)| f64::from((a - b).abs())))
}

/// The entries of a tensor on the host.
pub(crate) fn values<const D: usize>(
    what: &str,
    tensor: Tensor<D>,
) -> Result<Vec<f32>, ConformanceError> {
    tensor
        .try_into_vec_as::<f32>()
        .map_err(|error| ConformanceError::ReadBack {
            what: what.to_owned(),
            reason: error.to_string(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maximum_propagates_nan() {
        assert_eq!(largest([0.5, 2.0, 1.0]), 2.0);
        assert!(largest([0.5, f64::NAN, 1.0]).is_nan());
        assert!(difference(&[1.0, f32::NAN, 3.0], &[1.0, 2.0, 4.0]).is_nan());
        assert_eq!(difference(&[1.0, 2.5], &[1.0, 2.0]), 0.5);
        assert_eq!(difference(&[1.0], &[1.0, 2.0]), f64::INFINITY);
        let finding = |deviation| Finding {
            case: "x".into(),
            what: "y",
            deviation,
            tolerance: 1e-3,
        };
        assert!(finding(1e-3).holds() && finding(0.0).holds());
        assert!(!finding(1.1e-3).holds() && !finding(f64::NAN).holds());
    }
}
