//! Mean and standard error over seeds.

/// The mean of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// The standard error of the mean, `s / sqrt(n)` with the standard deviation `s` of the sample
    /// (`n - 1` in its denominator); none for a single value.
    pub standard_error: Option<f64>,
}

impl Estimate {
    /// Of values; none if there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len() as f64;
        if values.is_empty() {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Some(Self {
            mean,
            standard_error: (values.len() > 1).then(|| (squares / (n - 1.0) / n).sqrt()),
        })
    }

    /// With as many decimals as the error has meaning for: two digits of the error, and four decimals
    /// where there is no error.
    pub fn text(&self) -> String {
        let Self {
            mean,
            standard_error,
        } = *self;
        match standard_error {
            Some(error) => {
                let decimals = match error > 0.0 {
                    true => (1.0 - error.log10().floor()).clamp(0.0, 6.0) as usize,
                    false => 4,
                };
                format!("{mean:.decimals$} ± {error:.decimals$}")
            }
            None => format!("{mean:.4}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_standard_error_by_hand() {
        assert_eq!(Estimate::of(&[]), None);
        let one = Estimate::of(&[2.5]).unwrap();
        assert_eq!((one.mean, one.standard_error), (2.5, None));
        // Deviations -1, 0, 1: s^2 = 2 / 2 = 1, and 1 / sqrt(3).
        let three = Estimate::of(&[1.0, 2.0, 3.0]).unwrap();
        assert_eq!(three.mean, 2.0);
        assert!((three.standard_error.unwrap() - 0.577_350_269).abs() < 1e-9);
    }

    #[test]
    fn the_error_decides_on_the_decimals() {
        for (mean, standard_error, expected) in [
            (1.23456, None, "1.2346"),
            (1.23456, Some(0.0345), "1.235 ± 0.035"),
            (123.456, Some(12.3), "123 ± 12"),
            (1.5, Some(0.0), "1.5000 ± 0.0000"),
            (1.23456, Some(1.2e-9), "1.234560 ± 0.000000"),
        ] {
            let estimate = Estimate {
                mean,
                standard_error,
            };
            assert_eq!(estimate.text(), expected);
        }
    }
}
