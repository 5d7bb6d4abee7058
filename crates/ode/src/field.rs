//! The right-hand side of the equation.

use crate::{FixedPoint, State};

/// The vector field `F` of `dy/dt = F(y)`, within one layer.
///
/// Each call is one evaluation. The receiver is mutable because an evaluation may have separate
/// state: a decoder has one KV cache for every (layer, evaluation) pair, and the field counts its
/// calls to select it.
///
/// Any `FnMut(S) -> S` is a field.
pub trait VectorField<S: State> {
    /// `F(y)`.
    fn slope(&mut self, y: S) -> S;

    /// `G(y) = y + h F(y)`, the explicit Euler map.
    ///
    /// A residual block computes this more directly than its slope, and overrides it.
    fn euler(&mut self, y: S, h: f64) -> S {
        let slope = self.slope(y.clone());
        y.axpy(h, slope)
    }

    /// An evaluation at `z` whose value is not needed: it only takes its place among the others, as
    /// the one that later tokens attend to where tokens are decoded. Nothing to do elsewhere.
    fn skip(&mut self, z: S) {
        let _ = z;
    }

    /// Which parts of the state took the correction that was just made; called only where corrections
    /// stop by a tolerance.
    fn taken(&mut self, parts: &[bool]) {
        let _ = parts;
    }

    /// Whether the evaluations that follow are recorded for a backward pass, as they are at first.
    fn record(&mut self, on: bool) {
        let _ = on;
    }

    /// `y + h F(z)`, where `z` is a fixed point of this map of z, as one evaluation.
    ///
    /// In a backward pass it has the gradient of the fixed point, `(I - h J^T)^-1` times that of its
    /// value, with `J = dF/dz`; `adjoint` says how that is iterated. Without autodiff there is no
    /// difference to the sum.
    fn solved(&mut self, y: S, z: S, h: f64, adjoint: FixedPoint) -> S {
        let _ = adjoint;
        y.axpy(h, self.slope(z))
    }
}

impl<S: State, F: FnMut(S) -> S> VectorField<S> for F {
    fn slope(&mut self, y: S) -> S {
        self(y)
    }
}
