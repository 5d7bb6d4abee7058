//! Wanda: pruning by weights and activations.
//!
//! Sun, Liu, Bair and Kolter, "A Simple and Effective Pruning Approach for Large Language Models",
//! <https://arxiv.org/abs/2306.11695>, equation 1. The score of a weight is
//!
//! ```text
//! S_ij = |W_ij| |X_j|_2
//! ```
//!
//! with the norm of input j over all calibration tokens, compared among the weights of one output.

use rayon::prelude::*;

use super::pattern::{Pattern, clear};
use crate::error::{check_finite, check_length, check_size};
use crate::{CompressError, Hessian};

/// The norms of a projection's inputs over calibration tokens, added up over batches. For an iterated layer the
/// inputs of every evaluation are added, as for [`Hessian`].
#[derive(Debug, Clone)]
pub struct InputNorms {
    squares: Vec<f64>,
}

impl InputNorms {
    /// No inputs yet.
    pub fn new(d_in: usize) -> Self {
        Self {
            squares: vec![0.0; d_in],
        }
    }

    /// The norms of the inputs that were added to `hessian`, up to a factor that no choice depends on.
    pub fn of(hessian: &Hessian) -> Self {
        Self {
            squares: hessian.mean_squares(),
        }
    }

    /// Adds inputs, `[rows, d_in]`.
    ///
    /// # Errors
    ///
    /// When `x` is not whole rows, and for non-finite values.
    pub fn add(&mut self, x: &[f32]) -> Result<(), CompressError> {
        let d_in = self.squares.len();
        check_length("inputs", x.len(), x.len() / d_in.max(1) * d_in)?;
        check_finite("input", x)?;
        for row in x.chunks_exact(d_in.max(1)) {
            for (square, &x) in self.squares.iter_mut().zip(row) {
                *square += f64::from(x) * f64::from(x);
            }
        }
        Ok(())
    }

    /// The norms.
    pub fn norms(&self) -> Vec<f32> {
        self.squares.iter().map(|s| s.sqrt() as f32).collect()
    }
}

/// Sets in each row the weights with the lowest scores to zero. `weights` are `[d_out, d_in]`.
///
/// # Errors
///
/// For impossible patterns and non-finite weights.
pub fn wanda(
    weights: &mut [f32],
    d_out: usize,
    inputs: &InputNorms,
    pattern: Pattern,
) -> Result<(), CompressError> {
    let norms = inputs.norms();
    check_size(d_out, norms.len())?;
    check_length("weights", weights.len(), d_out * norms.len())?;
    check_finite("weight", weights)?;
    pattern.check(norms.len())?;
    weights
        .par_chunks_exact_mut(norms.len())
        .for_each(|row| clear(row, pattern, |i, w| w.abs() * norms[i]));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_loses_the_weights_that_contribute_least() {
        let mut inputs = InputNorms::new(4);
        inputs.add(&[3.0, 1.0, 0.0, 0.5]).unwrap();
        inputs.add(&[4.0, 0.0, 0.1, 0.0]).unwrap();
        assert_eq!(inputs.norms(), [5.0, 1.0, 0.1, 0.5]);
        // Scores 0.5, 3, 0.4, 1 and 5, 0.1, 0.6, 0.5.
        let w = [0.1, -3.0, 4.0, 2.0, 1.0, 0.1, 6.0, 1.0];
        let expected = [0.0, -3.0, 0.0, 2.0, 1.0, 0.0, 6.0, 0.0];
        for pattern in [
            Pattern::Unstructured { sparsity: 0.5 },
            Pattern::n_of_m(2, 4),
        ] {
            let mut pruned = w;
            wanda(&mut pruned, 2, &inputs, pattern).unwrap();
            assert_eq!(pruned, expected);
        }
    }

    #[test]
    fn what_does_not_fit_is_rejected() {
        let inputs = InputNorms::new(4);
        let half = Pattern::Unstructured { sparsity: 0.5 };
        assert!(wanda(&mut [0.0; 7], 2, &inputs, half).is_err());
        assert!(wanda(&mut [], 0, &inputs, half).is_err());
        assert!(wanda(&mut [], 1, &InputNorms::new(0), half).is_err());
        assert!(InputNorms::new(4).add(&[0.0; 6]).is_err());
    }
}
