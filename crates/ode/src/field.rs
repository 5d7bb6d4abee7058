//! The right-hand side of the equation.

use crate::State;

/// The vector field `F` of `dy/dt = F(y)`, within one layer.
///
/// Each call is one evaluation. The receiver is mutable because an evaluation may have a place of
/// its own: a decoder keeps one key/value cache for every (layer, evaluation) pair, and the field
/// counts its calls to know which one it is in.
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
}

impl<S: State, F: FnMut(S) -> S> VectorField<S> for F {
    fn slope(&mut self, y: S) -> S {
        self(y)
    }
}
