//! GPTQ: quantisation in which later weights compensate for the rounding of earlier ones.
//!
//! Frantar, Ashkboos, Hoefler and Alistarh, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
//! Transformers", <https://arxiv.org/abs/2210.17323>, algorithm 1. Beyond the paper are, as in the authors' program:
//! scales per group, dead inputs, and the order of activations.

use crate::CompressError;
use crate::compensate::{Place, sweep};
use crate::error::{check_finite, check_length};
use crate::hessian::Hessian;
use crate::packed::PackedMatrix;
use crate::round::{Range, pack};
use crate::scheme::{Grid, Scheme};

/// The order in which inputs are quantised. Either way the groups are of neighbouring inputs, so that the packed
/// format needs no permutation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// From the first to the last. A group's scale is chosen when its turn comes, for the weights as compensated so
    /// far.
    #[default]
    Inputs,
    /// The inputs with the largest mean square first, while most weights can still compensate. A group's inputs come
    /// at different times, so scales are chosen before the start (static groups). compressed-tensors has the name
    /// `actorder: "weight"` for this.
    Activation,
}

/// The options of GPTQ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gptq {
    /// Bits, groups and zero points.
    pub scheme: Scheme,
    /// How the range of a group is chosen.
    pub range: Range,
    /// What is added to the diagonal of H, in units of its mean.
    pub damping: f64,
    /// The order of inputs.
    pub order: Order,
}

impl Gptq {
    /// The usual options: damping 0.01, ranges of least squares, in the order of inputs.
    pub fn new(scheme: Scheme) -> Self {
        Self {
            scheme,
            range: Range::default(),
            damping: 0.01,
            order: Order::default(),
        }
    }

    /// Quantises a matrix `[d_out, d_in]` whose inputs have the second moments `hessian`.
    ///
    /// Weights of dead inputs, which were 0 in all of calibration, become 0.
    ///
    /// # Errors
    ///
    /// When groups do not divide `d_in`, for non-finite weights, without calibration inputs, and when the damped H is
    /// not positive definite.
    pub fn quantise(
        &self,
        weights: &[f32],
        d_out: usize,
        hessian: &Hessian,
    ) -> Result<PackedMatrix, CompressError> {
        let (scheme, d_in) = (self.scheme, hessian.d_in());
        scheme.check(d_out, d_in)?;
        check_length("weights", weights.len(), d_out * d_in)?;
        check_finite("weight", weights)?;
        let order = (self.order == Order::Activation).then(|| largest_first(hessian));
        let factor = hessian.factor(order.as_deref(), self.damping)?;

        let mut weights = weights.to_vec();
        hessian.clear_dead(&mut weights);
        let groups = d_in / scheme.group();
        let mut codes = vec![0; weights.len()];
        let mut grids = match order {
            None => vec![ZERO; d_out * groups],
            Some(_) => weights
                .chunks_exact(scheme.group())
                .map(|group| Grid::of(scheme, self.range, group))
                .collect::<Result<_, _>>()?,
        };
        if let Some(order) = &order {
            let rows = weights.chunks_exact(d_in);
            weights = rows.flat_map(|row| order.iter().map(|&i| row[i])).collect();
        }
        let mut rows: Vec<Row> = codes
            .chunks_exact_mut(d_in)
            .zip(grids.chunks_exact_mut(groups))
            .map(|(codes, grids)| Row { codes, grids })
            .collect();
        let decide = |row: &mut Row, place: Place| {
            let position = place.start + place.at;
            let input = order.as_ref().map_or(position, |order| order[position]);
            let group = input / scheme.group();
            if order.is_none() && input.is_multiple_of(scheme.group()) {
                // Groups do not cross blocks: their sizes divide a block's.
                let weights = &place.block[place.at..][..scheme.group()];
                row.grids[group] = Grid::of(scheme, self.range, weights)?;
            }
            let grid = row.grids[group];
            let code = grid.code(scheme.bits(), place.block[place.at]);
            row.codes[input] = code;
            Ok(grid.value(code))
        };
        sweep(
            &mut weights,
            &factor,
            d_in,
            &mut rows,
            |_, _, _, _| (),
            decide,
        )?;
        pack(scheme, d_out, d_in, &codes, &grids)
    }
}

const ZERO: Grid = Grid {
    scale: half::f16::ZERO,
    zero: 0,
};

struct Row<'a> {
    codes: &'a mut [u8],
    grids: &'a mut [Grid],
}

/// The inputs by mean square, equal ones in their order.
fn largest_first(hessian: &Hessian) -> Vec<usize> {
    let squares = hessian.mean_squares();
    let mut order: Vec<usize> = (0..squares.len()).collect();
    order.sort_by(|&a, &b| squares[b].total_cmp(&squares[a]));
    order
}
