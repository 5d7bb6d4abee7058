//! Rounding to the nearest code, and the choice of a group's scale.
//!
//! From the least and the largest weight of a group, extended to include 0:
//!
//! ```text
//! symmetric:   s = max |w| / ((2^bits - 1) / 2),   z = 2^(bits - 1)
//! asymmetric:  s = (max - min) / (2^bits - 1),     z = round(-min / s)
//! ```
//!
//! as in compressed-tensors (`calculate_qparams`), with s rounded to f16 before it is used. [`Range::LeastSquares`]
//! also tries smaller and slightly larger ranges, and takes the one with the least squared error of the group's
//! weights.

use half::f16;
use rayon::prelude::*;

use crate::CompressError;
use crate::error::{check_finite, check_length};
use crate::packed::PackedMatrix;
use crate::scheme::{Bits, Grid, Scheme};

/// How the range of a group's values is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Range {
    /// The range of the weights.
    MinMax,
    /// The range between 0.5 and 1.1 times that of the weights with the least squared error. With 4 bits it pays:
    /// see the README.
    #[default]
    LeastSquares,
}

/// Quantises a matrix `[d_out, d_in]` by rounding each weight to the nearest value of its group.
///
/// # Errors
///
/// When groups do not divide `d_in`, for non-finite weights and for weights whose scale f16 cannot hold.
pub fn round(
    weights: &[f32],
    d_out: usize,
    d_in: usize,
    scheme: Scheme,
    range: Range,
) -> Result<PackedMatrix, CompressError> {
    scheme.check(d_out, d_in)?;
    check_length("weights", weights.len(), d_out * d_in)?;
    check_finite("weight", weights)?;
    let mut codes = vec![0; weights.len()];
    let grids: Vec<Grid> = codes
        .par_chunks_exact_mut(scheme.group())
        .zip(weights.par_chunks_exact(scheme.group()))
        .map(|(codes, weights)| {
            let grid = Grid::of(scheme, range, weights)?;
            for (code, &w) in codes.iter_mut().zip(weights) {
                *code = grid.code(scheme.bits(), w);
            }
            Ok(grid)
        })
        .collect::<Result<_, CompressError>>()?;
    pack(scheme, d_out, d_in, &codes, &grids)
}

/// A matrix of codes, and of a grid for each group.
pub(crate) fn pack(
    scheme: Scheme,
    d_out: usize,
    d_in: usize,
    codes: &[u8],
    grids: &[Grid],
) -> Result<PackedMatrix, CompressError> {
    let scales = grids.iter().map(|g| g.scale).collect();
    let zeros = match scheme.symmetric() {
        true => Vec::new(),
        false => grids.iter().map(|g| g.zero).collect(),
    };
    PackedMatrix::pack(scheme, d_out, d_in, codes, scales, zeros)
}

impl Grid {
    /// The grid of a group of finite weights.
    ///
    /// # Errors
    ///
    /// When the scale is too large for f16.
    pub fn of(scheme: Scheme, range: Range, weights: &[f32]) -> Result<Self, CompressError> {
        let (mut min, mut max) = (0.0_f32, 0.0_f32);
        for &w in weights {
            min = min.min(w);
            max = max.max(w);
        }
        let whole = Self::of_range(scheme, min, max)?;
        if range == Range::MinMax {
            return Ok(whole);
        }
        let bits = scheme.bits();
        let mut best = (whole.squared_error(bits, weights), whole);
        // From 1.1 to 0.5 times the range, without 1.0.
        for step in (-4..=20).filter(|&step| step != 0) {
            let shrunk = 1.0 - 0.025 * step as f32;
            let Ok(grid) = Self::of_range(scheme, shrunk * min, shrunk * max) else {
                continue;
            };
            let error = grid.squared_error(bits, weights);
            if error < best.0 {
                best = (error, grid);
            }
        }
        Ok(best.1)
    }

    /// The grid from `min`, at most 0, to `max`, at least 0.
    fn of_range(scheme: Scheme, min: f32, max: f32) -> Result<Self, CompressError> {
        let bits = scheme.bits();
        let steps = f32::from(bits.max_code());
        let exact = match scheme.symmetric() {
            true => max.max(-min) / (steps / 2.0),
            // Halves, so that the difference does not overflow.
            false => (max / 2.0 - min / 2.0) / (steps / 2.0),
        };
        let scale = match f16::from_f32(exact) {
            scale if !scale.is_finite() => {
                return Err(CompressError::Value {
                    what: "scale of a group",
                    index: 0,
                    found: format!("{exact:e}"),
                    allowed: "at most 65504",
                });
            }
            // Any scale serves a group of zeros; this one is compressed-tensors'.
            _ if exact == 0.0 => f16::EPSILON,
            scale if scale == f16::ZERO => f16::MIN_POSITIVE_SUBNORMAL,
            scale => scale,
        };
        let zero = match scheme.symmetric() {
            true => bits.middle(),
            false => (-min / scale.to_f32()).round_ties_even().clamp(0.0, steps) as u8,
        };
        Ok(Self { scale, zero })
    }

    /// `sum (w - value)^2`.
    fn squared_error(self, bits: Bits, weights: &[f32]) -> f32 {
        let mut sum = 0.0;
        for &w in weights {
            let error = w - self.value(self.code(bits, w));
            sum += error * error;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheme(bits: u64, symmetric: bool) -> Scheme {
        Scheme::new(bits, 32, symmetric).unwrap()
    }

    #[test]
    fn scales_and_zero_points_are_those_of_the_formula() {
        let mut weights = [0.0; 32];
        weights[3] = -3.75;
        weights[7] = 1.5;
        let grid = |bits, symmetric| {
            let grid = Grid::of(scheme(bits, symmetric), Range::MinMax, &weights).unwrap();
            (grid.scale.to_f32(), grid.zero)
        };
        // 3.75 / 7.5; 5.25 / 15 = 0.35 in f16; 3.75 / 0.35 = 10.7.
        assert_eq!(grid(4, true), (0.5, 8));
        assert_eq!(grid(4, false), (f16::from_f32(0.35).to_f32(), 11));
        assert_eq!(grid(8, true), (f16::from_f32(3.75 / 127.5).to_f32(), 128));
    }

    #[test]
    fn zeros_stay_zeros_and_tiny_weights_finite() {
        for symmetric in [true, false] {
            let matrix = |w| {
                let scheme = scheme(4, symmetric);
                round(&[w; 32], 1, 32, scheme, Range::LeastSquares).unwrap()
            };
            let zero = matrix(0.0);
            let view = zero.view();
            assert_eq!(view.grid(0, 0).value(view.code(0, 5)), 0.0);
            let tiny = matrix(1e-9);
            assert_eq!(tiny.view().grid(0, 0).scale, f16::MIN_POSITIVE_SUBNORMAL);
        }
    }

    #[test]
    fn weights_that_f16_cannot_scale_are_rejected() {
        let error = round(&[1e6; 32], 1, 32, scheme(4, true), Range::MinMax).unwrap_err();
        assert_eq!(
            error.to_string(),
            "scale of a group 0: 1.3333333e5, allowed is at most 65504"
        );
        let mut weights = [0.0; 32];
        weights[9] = f32::INFINITY;
        let error = round(&weights, 1, 32, scheme(4, true), Range::MinMax).unwrap_err();
        assert_eq!(
            error.to_string(),
            "weight 9: inf, allowed is a finite number"
        );
        let wide = [-f32::MAX, f32::MAX].repeat(16);
        assert!(round(&wide, 1, 32, scheme(4, false), Range::MinMax).is_err());
    }

    #[test]
    fn a_smaller_range_is_taken_when_one_weight_is_far_out() {
        // Values of a grid with s = 0.1, and one weight beyond it.
        let mut weights: Vec<f32> = (0..32).map(|i| 0.1 * (i % 15 - 7) as f32).collect();
        weights[0] = 0.8;
        let error = |range| {
            let grid = Grid::of(scheme(4, true), range, &weights).unwrap();
            grid.squared_error(Bits::Four, &weights)
        };
        assert!(error(Range::LeastSquares) < 0.9 * error(Range::MinMax));
    }
}
