//! Pruning by magnitude: the score of a weight is |w|, compared over the whole matrix.

use super::pattern::{Pattern, clear};
use crate::CompressError;
use crate::error::{check_finite, check_length, check_size};

/// Sets the weights nearest to zero to zero. `weights` are `[d_out, d_in]`.
///
/// # Errors
///
/// For impossible patterns and non-finite weights.
pub fn magnitude(
    weights: &mut [f32],
    d_out: usize,
    d_in: usize,
    pattern: Pattern,
) -> Result<(), CompressError> {
    check_size(d_out, d_in)?;
    check_length("weights", weights.len(), d_out * d_in)?;
    check_finite("weight", weights)?;
    pattern.check(d_in)?;
    clear(weights, pattern, |_, w| w.abs());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const W: [f32; 8] = [0.1, -3.0, 0.2, 4.0, 5.0, -0.3, 6.0, 7.0];

    #[test]
    fn unstructured_zeros_are_chosen_over_the_whole_matrix() {
        let mut w = W;
        magnitude(&mut w, 2, 4, Pattern::Unstructured { sparsity: 0.375 }).unwrap();
        assert_eq!(w, [0.0, -3.0, 0.0, 4.0, 5.0, 0.0, 6.0, 7.0]);
    }

    #[test]
    fn two_of_four_are_chosen_among_neighbours() {
        let mut w = W;
        magnitude(&mut w, 2, 4, Pattern::n_of_m(2, 4)).unwrap();
        assert_eq!(w, [0.0, -3.0, 0.0, 4.0, 0.0, 0.0, 6.0, 7.0]);
    }

    #[test]
    fn none_and_all_are_possible() {
        let mut w = W;
        magnitude(&mut w, 2, 4, Pattern::Unstructured { sparsity: 0.0 }).unwrap();
        assert_eq!(w, W);
        magnitude(&mut w, 2, 4, Pattern::Unstructured { sparsity: 1.0 }).unwrap();
        assert_eq!(w, [0.0; 8]);
    }
}
