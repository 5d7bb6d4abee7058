//! What can be integrated: anything that can be scaled and added.

#[cfg(feature = "burn")]
use burn::tensor::Tensor;

/// An element of a vector space over the reals, the `y` of `dy/dt = F(y)`.
pub trait State: Clone {
    /// `c * self`.
    fn scale(self, c: f64) -> Self;

    /// `self + other`.
    fn plus(self, other: Self) -> Self;

    /// `self + c * x`. A factor of one costs no multiplication: it is the step of every layer.
    fn axpy(self, c: f64, x: Self) -> Self {
        self.plus(if c == 1.0 { x } else { x.scale(c) })
    }
}

impl State for f64 {
    fn scale(self, c: f64) -> Self {
        c * self
    }

    fn plus(self, other: Self) -> Self {
        self + other
    }
}

impl<const N: usize> State for [f64; N] {
    fn scale(self, c: f64) -> Self {
        self.map(|x| c * x)
    }

    fn plus(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] + other[i])
    }
}

/// Hidden states of any rank, for example `[batch, seq, d_model]`.
#[cfg(feature = "burn")]
impl<const D: usize> State for Tensor<D> {
    fn scale(self, c: f64) -> Self {
        self.mul_scalar(c)
    }

    fn plus(self, other: Self) -> Self {
        self + other
    }
}
