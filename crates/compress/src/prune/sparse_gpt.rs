//! SparseGPT: pruning in which later weights compensate for those that became zero.
//!
//! Frantar and Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
//! <https://arxiv.org/abs/2301.00774>, algorithm 1. The score of a weight is the loss when it becomes zero and all
//! later weights of its row compensate,
//!
//! ```text
//! S_ij = W_ij^2 / U_jj^2,   H^-1 = U^T U
//! ```
//!
//! Unstructured zeros are chosen for 128 inputs at a time, over all rows together; N of M among neighbours, when
//! their turn comes.

use super::pattern::{Pattern, lowest};
use crate::compensate::{BLOCK, Place, sweep};
use crate::error::{check_finite, check_length, check_size};
use crate::{CompressError, Hessian};

/// The options of SparseGPT.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SparseGpt {
    /// Where zeros lie.
    pub pattern: Pattern,
    /// What is added to the diagonal of H, in units of its mean.
    pub damping: f64,
}

impl SparseGpt {
    /// The usual damping, 0.01.
    pub fn new(pattern: Pattern) -> Self {
        Self {
            pattern,
            damping: 0.01,
        }
    }

    /// Prunes a matrix `[d_out, d_in]` whose inputs have the second moments `hessian`. All weights can change.
    ///
    /// # Errors
    ///
    /// For impossible patterns, non-finite weights, without calibration inputs, and when the damped H is not positive
    /// definite.
    pub fn prune(
        &self,
        weights: &mut [f32],
        d_out: usize,
        hessian: &Hessian,
    ) -> Result<(), CompressError> {
        let d_in = hessian.d_in();
        check_size(d_out, d_in)?;
        check_length("weights", weights.len(), d_out * d_in)?;
        check_finite("weight", weights)?;
        self.pattern.check(d_in)?;
        let factor = hessian.factor(None, self.damping)?;
        hessian.clear_dead(weights);
        let pivots: Vec<f32> = factor.iter().step_by(d_in + 1).map(|u| u * u).collect();

        let mut rows = vec![Row([false; BLOCK]); d_out];
        let begin = |start: usize, width: usize, weights: &[f32], rows: &mut [Row]| {
            if let Pattern::Unstructured { .. } = self.pattern {
                let scores: Vec<f32> = weights
                    .chunks_exact(d_in)
                    .flat_map(|row| row[start..][..width].iter().zip(&pivots[start..]))
                    .map(|(w, pivot)| w * w / pivot)
                    .collect();
                rows.fill(Row([false; BLOCK]));
                for i in lowest(&scores, self.pattern.pieces(scores.len()).1) {
                    rows[i / width].0[i % width] = true;
                }
            }
        };
        let decide = |row: &mut Row, place: Place| {
            if let Pattern::Neighbours { zeros, of } = self.pattern
                && place.at.is_multiple_of(of)
            {
                // Neighbours do not cross blocks: M divides a block's width.
                let neighbours = &place.block[place.at..][..of];
                let pivots = &pivots[place.start + place.at..];
                let scores = neighbours.iter().zip(pivots);
                let scores: Vec<f32> = scores.map(|(w, pivot)| w * w / pivot).collect();
                row.0[place.at..][..of].fill(false);
                for i in lowest(&scores, zeros) {
                    row.0[place.at + i] = true;
                }
            }
            Ok(match row.0[place.at] {
                true => 0.0,
                false => place.block[place.at],
            })
        };
        sweep(weights, &factor, d_in, &mut rows, begin, decide)
    }
}

/// Which weights of the current block become zero.
#[derive(Clone)]
struct Row([bool; BLOCK]);
