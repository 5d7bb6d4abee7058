//! The second moments of a projection's inputs, `H = X^T X / tokens`.
//!
//! The squared error of a projection's output is a quadratic form in the change of its weights,
//! `|X W^T - X W'^T|^2 / tokens = sum_rows (w - w') H (w - w')^T`, and 2 H is its Hessian: what GPTQ and SparseGPT
//! compensate with.

use rayon::prelude::*;

use crate::CompressError;
use crate::cholesky::inverse_factor;
use crate::error::{check_finite, check_length, check_size};
use crate::matrix::{Then, View, product};

/// Tokens whose products are summed in f32 before they are added in f64.
const TOKENS: usize = 256;
/// Rows of H that are computed at once.
const STRIP: usize = 256;

/// Second moments of inputs, added up over batches.
///
/// A weight serves every evaluation of its layer. For an iterated layer, which evaluates its block 1 + r times per
/// token, the inputs of every evaluation must be added: the error to minimise is the sum over all uses of the weight,
/// and the later evaluations see other states than the first.
#[derive(Debug, Clone)]
pub struct Hessian {
    d_in: usize,
    /// `X^T X`, of which the lower triangle is filled.
    sum: Vec<f64>,
    rows: usize,
}

impl Hessian {
    /// No inputs yet. Takes `8 d_in^2` bytes.
    ///
    /// # Errors
    ///
    /// When `d_in` is 0 or above 2^24.
    pub fn new(d_in: usize) -> Result<Self, CompressError> {
        check_size(d_in, d_in)?;
        Ok(Self {
            d_in,
            sum: vec![0.0; d_in * d_in],
            rows: 0,
        })
    }

    /// Adds inputs, `[rows, d_in]`: one row per token and evaluation.
    ///
    /// # Errors
    ///
    /// When `x` is not whole rows, and for non-finite values, before anything is added.
    pub fn add(&mut self, x: &[f32]) -> Result<(), CompressError> {
        let d_in = self.d_in;
        let rows = x.len() / d_in;
        check_length("inputs", x.len(), rows * d_in)?;
        check_finite("input", x)?;
        let mut products = Vec::new();
        for x in x.chunks(TOKENS * d_in) {
            let tokens = x.len() / d_in;
            for from in (0..d_in).step_by(STRIP) {
                let to = (from + STRIP).min(d_in);
                let strip = View::new(&x[from..], [tokens, to - from], d_in);
                let others = View::new(x, [tokens, to], d_in);
                products.resize((to - from) * to, 0.0);
                product(&mut products, to, Then::Replace, strip.transposed(), others);
                self.sum[from * d_in..to * d_in]
                    .par_chunks_exact_mut(d_in)
                    .zip(products.par_chunks_exact(to))
                    .for_each(|(sum, products)| {
                        for (sum, &p) in sum.iter_mut().zip(products) {
                            *sum += f64::from(p);
                        }
                    });
            }
        }
        self.rows += rows;
        Ok(())
    }

    /// Input width.
    pub fn d_in(&self) -> usize {
        self.d_in
    }

    /// Inputs added.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The mean square of each input.
    pub fn mean_squares(&self) -> Vec<f64> {
        let rows = self.rows.max(1) as f64;
        let diagonal = self.sum.iter().step_by(self.d_in + 1);
        diagonal.map(|sum| sum / rows).collect()
    }

    /// The mean over the inputs of `|x W^T - x W'^T|^2`, for W - W', `[d_out, d_in]`.
    ///
    /// # Errors
    ///
    /// When `difference` is not whole rows.
    pub fn output_error(&self, difference: &[f32]) -> Result<f64, CompressError> {
        let d_in = self.d_in;
        let d_out = difference.len() / d_in;
        check_length("difference of weights", difference.len(), d_out * d_in)?;
        let full = self.gathered(None, 0.0, |_| false);
        let mut total = 0.0;
        let mut products = vec![0.0; STRIP * d_in];
        for rows in difference.chunks(STRIP * d_in) {
            let wide: Vec<f64> = rows.iter().map(|&w| f64::from(w)).collect();
            let shape = [rows.len() / d_in, d_in];
            let h = View::new(&full, [d_in, d_in], d_in);
            product(
                &mut products,
                d_in,
                Then::Replace,
                View::new(&wide, shape, d_in),
                h,
            );
            total += wide.iter().zip(&products).map(|(a, b)| a * b).sum::<f64>();
        }
        Ok(total)
    }

    /// H, complete, with `extra` added to the diagonal. Entry (i, j) is that of inputs `order[i]` and `order[j]`. On
    /// the diagonal of dead inputs is 1.
    fn gathered(
        &self,
        order: Option<&[usize]>,
        extra: f64,
        dead: impl Fn(usize) -> bool + Sync,
    ) -> Vec<f64> {
        let n = self.d_in;
        let rows = self.rows.max(1) as f64;
        let source = |i: usize| order.map_or(i, |order| order[i]);
        let mut h = vec![0.0; n * n];
        h.par_chunks_exact_mut(n).enumerate().for_each(|(i, row)| {
            let a = source(i);
            for (j, h) in row.iter_mut().enumerate() {
                let b = source(j);
                *h = self.sum[a.max(b) * n + a.min(b)] / rows;
            }
            if dead(a) {
                row[i] = 1.0;
            }
            row[i] += extra;
        });
        h
    }

    /// U with `H^-1 = U^T U`, for H damped and in this order of inputs.
    pub(crate) fn factor(
        &self,
        order: Option<&[usize]>,
        damping: f64,
    ) -> Result<Vec<f32>, CompressError> {
        if !(0.0..=1.0).contains(&damping) {
            return Err(CompressError::Option {
                option: "damping",
                found: damping.to_string(),
                allowed: "0 to 1",
            });
        }
        if self.rows == 0 {
            return Err(CompressError::Option {
                option: "the number of calibration inputs",
                found: "0".into(),
                allowed: "at least 1",
            });
        }
        let squares = self.mean_squares();
        let dead = |i: usize| squares[i] == 0.0;
        let diagonal = |i: usize| if dead(i) { 1.0 } else { squares[i] };
        let mean = (0..self.d_in).map(diagonal).sum::<f64>() / self.d_in as f64;
        let h = self.gathered(order, damping * mean, dead);
        let factor =
            inverse_factor(h, self.d_in).map_err(|e| CompressError::NotPositiveDefinite {
                column: order.map_or(e.row, |order| order[e.row]),
                pivot: e.pivot,
                damping,
            })?;
        Ok(factor.iter().map(|&u| u as f32).collect())
    }

    /// Sets the weights of dead inputs to zero, in rows of `d_in`.
    pub(crate) fn clear_dead(&self, weights: &mut [f32]) {
        let dead: Vec<usize> = self
            .sum
            .iter()
            .step_by(self.d_in + 1)
            .enumerate()
            .filter_map(|(i, &square)| (square == 0.0).then_some(i))
            .collect();
        for row in weights.chunks_exact_mut(self.d_in) {
            for &i in &dead {
                row[i] = 0.0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::random;

    #[test]
    fn moments_and_errors_are_those_computed_by_hand() {
        let mut hessian = Hessian::new(2).unwrap();
        hessian.add(&[1.0, 2.0]).unwrap();
        hessian.add(&[3.0, -1.0, 0.0, 1.0]).unwrap();
        // X^T X = [[10, -1], [-1, 6]], of three rows.
        assert_eq!(hessian.rows(), 3);
        assert_eq!(hessian.mean_squares(), [10.0 / 3.0, 2.0]);
        // x (1, 1)^T is 3, 2, 1: 14 / 3; x (2, 0)^T is 2, 6, 0: 40 / 3.
        let error = hessian.output_error(&[1.0, 1.0, 2.0, 0.0]).unwrap();
        assert!((error - 18.0).abs() < 1e-12);
    }

    #[test]
    fn batches_add_up() {
        let (rows, d_in) = (600, 300);
        let x = random(1, rows * d_in);
        let [mut once, mut twice] = [(), ()].map(|()| Hessian::new(d_in).unwrap());
        once.add(&x).unwrap();
        let (first, second) = x.split_at(123 * d_in);
        twice.add(first).unwrap();
        twice.add(second).unwrap();
        for (a, b) in once.sum.iter().zip(&twice.sum) {
            assert!((a - b).abs() < 1e-3);
        }
        // One entry below the diagonal, against f64.
        let exact: f64 = x
            .chunks_exact(d_in)
            .map(|x| f64::from(x[290]) * f64::from(x[7]))
            .sum();
        assert!((once.sum[290 * d_in + 7] - exact).abs() < 1e-4);
    }

    #[test]
    fn what_cannot_be_used_is_rejected() {
        let mut hessian = Hessian::new(2).unwrap();
        assert!(hessian.add(&[1.0, 2.0, 3.0]).is_err());
        let error = hessian.add(&[1.0, f32::NAN]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "input 1: NaN, allowed is a finite number"
        );
        let error = hessian.factor(None, 0.01).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the number of calibration inputs is 0; allowed is at least 1"
        );
        // Two equal inputs: singular without damping.
        hessian.add(&[1.0, 1.0]).unwrap();
        assert!(matches!(
            hessian.factor(None, 0.0),
            Err(CompressError::NotPositiveDefinite { column: 0, .. })
        ));
        assert!(hessian.factor(None, 0.01).is_ok());
        assert!(hessian.factor(None, f64::NAN).is_err());
    }
}
