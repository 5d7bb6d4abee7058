//! What can be integrated: anything that can be scaled and added.

#[cfg(feature = "burn")]
use burn::tensor::{Bool, DType, Tensor, TensorData};
#[cfg(feature = "burn")]
use iiet_kernels::{add, in_f32};

/// An element of a vector space over the reals, the `y` of `dy/dt = F(y)`.
///
/// A state is one part or several that a fixed-point iteration treats each by itself: hidden states
/// `[.., d_model]` have a part for each token. The methods for that have bodies for states of one part
/// without an inner product, which are iterated plainly.
pub trait State: Clone {
    /// `c * self`.
    fn scale(self, c: f64) -> Self;

    /// `self + other`.
    fn plus(self, other: Self) -> Self;

    /// `self + c * x`. A factor of one costs no multiplication: it is the step of every layer.
    fn axpy(self, c: f64, x: Self) -> Self {
        self.plus(if c == 1.0 { x } else { x.scale(c) })
    }

    /// `<self, other>` of each part; NaN where there is no inner product.
    fn dots(&self, other: &Self) -> Vec<f64> {
        let _ = other;
        vec![f64::NAN]
    }

    /// Each part times a factor of its own.
    fn scale_parts(self, c: &[f64]) -> Self {
        self.scale(c[0])
    }

    /// The same with the parts of `other` where `taken`.
    fn with_parts(self, other: &Self, taken: &[bool]) -> Self {
        match taken[0] {
            true => other.clone(),
            false => self,
        }
    }

    /// The same value, that no gradient flows through.
    fn untracked(self) -> Self {
        self
    }

    /// The relative spacing of its numbers.
    fn epsilon(&self) -> f64 {
        f64::EPSILON
    }
}

impl State for f64 {
    fn scale(self, c: f64) -> Self {
        c * self
    }

    fn plus(self, other: Self) -> Self {
        self + other
    }

    fn dots(&self, other: &Self) -> Vec<f64> {
        vec![self * other]
    }
}

impl<const N: usize> State for [f64; N] {
    fn scale(self, c: f64) -> Self {
        self.map(|x| c * x)
    }

    fn plus(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] + other[i])
    }

    fn dots(&self, other: &Self) -> Vec<f64> {
        vec![self.iter().zip(other).map(|(a, b)| a * b).sum()]
    }
}

/// Hidden states of any rank, for example `[batch, seq, d_model]`; their parts are vectors of the last
/// dimension.
#[cfg(feature = "burn")]
impl<const D: usize> State for Tensor<D> {
    fn scale(self, c: f64) -> Self {
        self.mul_scalar(c)
    }

    fn plus(self, other: Self) -> Self {
        add(self, other)
    }

    fn dots(&self, other: &Self) -> Vec<f64> {
        let [a, b] = [self, other].map(|x| in_f32(x.clone().inner()));
        let dots = (a * b).sum_dim(D - 1);
        dots.into_data().iter::<f64>().collect()
    }

    fn scale_parts(self, c: &[f64]) -> Self {
        let factors = TensorData::new::<f64, _>(c.to_vec(), one_a_part(&self));
        let factors = factors.convert_dtype(self.dtype());
        let options = (&self.device(), self.dtype());
        self * Tensor::from_data(factors, options)
    }

    fn with_parts(self, other: &Self, taken: &[bool]) -> Self {
        if !taken.contains(&true) {
            return self;
        }
        let mask = TensorData::new::<bool, _>(taken.to_vec(), one_a_part(&self));
        let mask = Tensor::<D, Bool>::from_data(mask, &self.device());
        let mask = mask.expand(self.dims());
        self.mask_where(mask, other.clone())
    }

    fn untracked(self) -> Self {
        match self.is_autodiff() {
            true => self.inner().autodiff(),
            false => self,
        }
    }

    fn epsilon(&self) -> f64 {
        match self.dtype() {
            DType::F64 => f64::EPSILON,
            DType::F16 => 2.0f64.powi(-10),
            DType::BF16 => 2.0f64.powi(-7),
            _ => f64::from(f32::EPSILON),
        }
    }
}

/// The shape of one number for each part.
#[cfg(feature = "burn")]
fn one_a_part<const D: usize>(x: &Tensor<D>) -> [usize; D] {
    let mut dims = x.dims();
    dims[D - 1] = 1;
    dims
}
