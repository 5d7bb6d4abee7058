//! Where zeros may lie, and the choice of weights by score.

use crate::CompressError;

/// Where zeros lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pattern {
    /// Anywhere.
    Unstructured {
        /// The fraction of weights that become zero, from 0 to 1.
        sparsity: f64,
    },
    /// Of every `of` neighbouring inputs of a row, `zeros` become zero. 2 of 4 is what sparse tensor cores multiply.
    Neighbours {
        /// Zeros among the neighbours.
        zeros: usize,
        /// Neighbours: 2 to 128, a power of two.
        of: usize,
    },
}

impl Pattern {
    /// `zeros` of every `of` neighbouring inputs of a row.
    pub const fn n_of_m(zeros: usize, of: usize) -> Self {
        Self::Neighbours { zeros, of }
    }

    /// Rejects impossible patterns, and matrices that they do not divide.
    pub(crate) fn check(self, d_in: usize) -> Result<(), CompressError> {
        match self {
            Self::Unstructured { sparsity } if (0.0..=1.0).contains(&sparsity) => Ok(()),
            Self::Unstructured { sparsity } => Err(CompressError::Option {
                option: "sparsity",
                found: sparsity.to_string(),
                allowed: "0 to 1",
            }),
            Self::Neighbours { zeros, of } => {
                if !(2..=128).contains(&of) || !of.is_power_of_two() || zeros > of {
                    return Err(CompressError::Option {
                        option: "the pattern",
                        found: format!("{zeros} of {of}"),
                        allowed: "N of M with M a power of two from 2 to 128 and N at most M",
                    });
                }
                match d_in.is_multiple_of(of) {
                    true => Ok(()),
                    false => Err(CompressError::Option {
                        option: "the input width",
                        found: d_in.to_string(),
                        allowed: "a multiple of the pattern's M",
                    }),
                }
            }
        }
    }

    /// Entries of the smallest pieces in which the pattern is chosen, for a slice of this length, and zeros in each.
    pub(crate) fn pieces(self, len: usize) -> (usize, usize) {
        match self {
            Self::Unstructured { sparsity } => (len, (sparsity * len as f64).round() as usize),
            Self::Neighbours { zeros, of } => (of, zeros),
        }
    }
}

/// The indices of the `count` lowest scores; among equal ones the earlier.
pub(crate) fn lowest(scores: &[f32], count: usize) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..scores.len()).collect();
    if count < indices.len() {
        indices.select_nth_unstable_by(count, |&a, &b| {
            scores[a].total_cmp(&scores[b]).then(a.cmp(&b))
        });
        indices.truncate(count);
    }
    indices
}

/// Sets the weights with the lowest scores to zero; the pattern is chosen over the whole slice.
pub(crate) fn clear(weights: &mut [f32], pattern: Pattern, score: impl Fn(usize, f32) -> f32) {
    let (piece, zeros) = pattern.pieces(weights.len());
    if zeros == 0 {
        return;
    }
    for (n, piece_weights) in weights.chunks_mut(piece).enumerate() {
        let scores = piece_weights.iter().enumerate();
        let scores: Vec<f32> = scores.map(|(i, &w)| score(n * piece + i, w)).collect();
        for i in lowest(&scores, zeros) {
            piece_weights[i] = 0.0;
        }
    }
}

/// The fraction of weights that are zero.
pub fn zeros(weights: &[f32]) -> f64 {
    let zeros = weights.iter().filter(|&&w| w == 0.0).count();
    zeros as f64 / weights.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_are_taken_and_the_earlier_of_equals() {
        let mut chosen = lowest(&[3.0, 1.0, 2.0, 1.0, 1.0], 2);
        chosen.sort_unstable();
        assert_eq!(chosen, [1, 3]);
        assert_eq!(lowest(&[1.0, 2.0], 2).len(), 2);
        assert!(lowest(&[1.0, 2.0], 0).is_empty());
    }

    #[test]
    fn impossible_patterns_are_rejected() {
        let message = |pattern: Pattern| pattern.check(6).unwrap_err().to_string();
        assert_eq!(
            message(Pattern::Unstructured { sparsity: 1.5 }),
            "sparsity is 1.5; allowed is 0 to 1"
        );
        assert_eq!(
            message(Pattern::n_of_m(2, 4)),
            "the input width is 6; allowed is a multiple of the pattern's M"
        );
        assert!(Pattern::n_of_m(3, 2).check(6).is_err());
        assert!(Pattern::n_of_m(2, 3).check(6).is_err());
        assert!(Pattern::n_of_m(0, 0).check(6).is_err());
        assert!(
            Pattern::Unstructured { sparsity: f64::NAN }
                .check(6)
                .is_err()
        );
    }
}
