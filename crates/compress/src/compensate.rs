//! Changing the weights of a matrix input by input, where later weights compensate for the changes.
//!
//! When weight i of a row becomes q, the change of the others that keeps the output's squared error least is
//! (Optimal Brain Surgeon; GPTQ, equation 2)
//!
//! ```text
//! w_j -= (w_i - q) / U_ii U_ij,   j > i,   H^-1 = U^T U
//! ```
//!
//! As in section 3.3 of the paper (<https://arxiv.org/abs/2210.17323>), a block of inputs is finished before the
//! inputs after it are updated, with one matrix product.

use rayon::prelude::*;

use crate::CompressError;
use crate::matrix::{Then, View, product};

/// Inputs per block.
pub(crate) const BLOCK: usize = 128;

/// Where a sweep is in a row.
pub(crate) struct Place<'a> {
    /// The first input of the block.
    pub(crate) start: usize,
    /// The input, counted from the block's first.
    pub(crate) at: usize,
    /// The block of the row: decided up to `at`, and compensated from there on.
    pub(crate) block: &'a [f32],
}

/// Replaces the weights `[rows, n]`, in the order of the inputs, by what `decide` makes of them.
///
/// `factor` is U, `[n, n]`. Each row has a state. Before each block `begin` is called with the first input of the
/// block, its width, the weights and the states; `decide` gives the new value of `place.block[place.at]`.
pub(crate) fn sweep<S: Send>(
    weights: &mut [f32],
    factor: &[f32],
    n: usize,
    states: &mut [S],
    mut begin: impl FnMut(usize, usize, &[f32], &mut [S]),
    decide: impl Fn(&mut S, Place<'_>) -> Result<f32, CompressError> + Sync,
) -> Result<(), CompressError> {
    let rows = states.len();
    let mut errors = vec![0.0; rows * BLOCK];
    for start in (0..n).step_by(BLOCK) {
        let end = (start + BLOCK).min(n);
        let width = end - start;
        begin(start, width, weights, states);
        weights
            .par_chunks_exact_mut(n)
            .zip(errors.par_chunks_exact_mut(BLOCK))
            .zip(&mut *states)
            .with_min_len(4)
            .try_for_each(|((row, errors), state)| {
                let block = &mut row[start..end];
                for at in 0..width {
                    let place = Place { start, at, block };
                    let value = decide(state, place)?;
                    let u = &factor[(start + at) * n + start..][..width];
                    let error = (block[at] - value) / u[at];
                    errors[at] = error;
                    block[at] = value;
                    for (w, u) in block[at + 1..].iter_mut().zip(&u[at + 1..]) {
                        *w -= error * u;
                    }
                }
                Ok(())
            })?;
        if end < n {
            let errors = View::new(&errors, [rows, width], BLOCK);
            let later = View::new(&factor[start * n + end..], [width, n - end], n);
            product(&mut weights[end..], n, Then::Subtract, errors, later);
        }
    }
    Ok(())
}
