//! A block's projections, `y = x W` and a bias if there is one.
//!
//! Training and most models have dense matrices. A model whose weights were quantised has some of 8 or 4 bits
//! ([`Projection::Packed`]), which are constants. To calibrate such a model, or to prune one, a projection can
//! report its inputs ([`Projection::observe`]): those of every evaluation of its layer, since all of them are
//! made by the same matrix.

use std::fmt;
use std::sync::Arc;

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::Tensor;
use iiet_kernels::{PackedWeight, linear, packed_linear};
use iiet_ode::{Parameter, Parameters, Role};

use crate::Boxed;

/// A projection of each token.
#[derive(Module, Debug)]
pub enum Projection {
    /// By a matrix of floats.
    Dense(Linear),
    /// By a matrix of 8 or 4 bits.
    Packed(Boxed<PackedProjection>),
    /// Dense, and inputs are reported.
    Observed(ObservedProjection),
}

/// A projection by a matrix of 8 or 4 bits.
#[derive(Module, Debug)]
pub struct PackedProjection {
    /// `[d_out, d_in]`
    pub weight: PackedWeight,
    /// `[d_out]`, if there is one.
    pub bias: Option<Param<Tensor<1>>>,
}

/// A dense projection that reports its inputs.
#[derive(Module, Debug)]
pub struct ObservedProjection {
    linear: Linear,
    #[module(skip)]
    observer: InputObserver,
}

/// Receives inputs of a projection, `[batch, seq, d_in]`.
#[derive(Clone)]
pub struct InputObserver(Arc<dyn Fn(&Tensor<3>) + Send + Sync>);

impl InputObserver {
    /// A function as an observer.
    pub fn new(f: impl Fn(&Tensor<3>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(f))
    }
}

impl fmt::Debug for InputObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InputObserver")
    }
}

impl Projection {
    /// Applied to each token.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq, d_in]`
    /// - output: `[batch, seq, d_out]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Dense(dense) => project(dense, x),
            Self::Packed(packed) => plus_bias(packed_linear(x, &packed.weight), &packed.bias),
            Self::Observed(ObservedProjection { linear, observer }) => {
                (observer.0)(&x);
                project(linear, x)
            }
        }
    }

    /// The matrix and the bias, unless the matrix is packed.
    pub fn dense(&self) -> Option<&Linear> {
        match self {
            Self::Dense(linear) | Self::Observed(ObservedProjection { linear, .. }) => Some(linear),
            Self::Packed(_) => None,
        }
    }

    /// The same, to be changed.
    pub fn dense_mut(&mut self) -> Option<&mut Linear> {
        match self {
            Self::Dense(linear) | Self::Observed(ObservedProjection { linear, .. }) => Some(linear),
            Self::Packed(_) => None,
        }
    }

    /// W, `[d_in, d_out]`; a packed one is widened to f32.
    pub fn matrix(&self) -> Tensor<2> {
        match self {
            Self::Dense(linear) | Self::Observed(ObservedProjection { linear, .. }) => {
                linear.weight.val()
            }
            Self::Packed(packed) => packed.weight.widened().transpose(),
        }
    }

    /// The packed matrix, if it is one.
    pub fn packed(&self) -> Option<&PackedWeight> {
        match self {
            Self::Packed(packed) => Some(&packed.weight),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn packed_mut(&mut self) -> Option<&mut PackedWeight> {
        match self {
            Self::Packed(packed) => Some(&mut packed.weight),
            _ => None,
        }
    }

    /// From now on the inputs are reported to an observer; those of a packed matrix are not.
    pub fn observe(&mut self, observer: InputObserver) {
        if let Some(linear) = self.dense() {
            let linear = linear.clone();
            *self = Self::Observed(ObservedProjection { linear, observer });
        }
    }

    /// Drops the observer, if there is one.
    pub fn stop_observing(&mut self) {
        if let Self::Observed(ObservedProjection { linear, .. }) = self {
            *self = Self::Dense(linear.clone());
        }
    }

    /// Replaces the matrix; the bias stays.
    ///
    /// # Panics
    ///
    /// If the widths differ.
    pub fn pack(&mut self, weight: PackedWeight) {
        let widths = [weight.d_in(), weight.d_out()];
        assert_eq!(self.widths(), widths, "pack: widths differ");
        let bias = match self {
            Self::Dense(linear) | Self::Observed(ObservedProjection { linear, .. }) => {
                linear.bias.take()
            }
            Self::Packed(packed) => packed.bias.take(),
        };
        *self = Self::Packed(Boxed::new(PackedProjection { weight, bias }));
    }

    /// Replaces a packed matrix by the floats that it stands for; a dense one stays.
    pub fn widen(&mut self) {
        if let Self::Packed(packed) = self {
            let weight = Param::from_tensor(packed.weight.widened().transpose());
            let bias = packed.bias.take();
            *self = Self::Dense(Linear { weight, bias });
        }
    }

    /// Input and output width.
    pub fn widths(&self) -> [usize; 2] {
        match self {
            Self::Dense(linear) | Self::Observed(ObservedProjection { linear, .. }) => {
                linear.weight.lazy_shape().dims()
            }
            Self::Packed(packed) => [packed.weight.d_in(), packed.weight.d_out()],
        }
    }
}

/// `weight` and `bias`, whatever the matrix is.
impl Parameters for Projection {
    fn parameter(path: &[&str]) -> Option<Parameter> {
        match path {
            [.., "weight"] => Some(Parameter::new("weight", Role::PROJECTION)),
            [.., "bias"] => Some(Parameter::new("bias", Role::COEFFICIENT)),
            _ => None,
        }
    }
}

/// `x W`, and the bias if there is one.
fn project(layer: &Linear, x: Tensor<3>) -> Tensor<3> {
    plus_bias(linear(x, layer.weight.val()), &layer.bias)
}

fn plus_bias(product: Tensor<3>, bias: &Option<Param<Tensor<1>>>) -> Tensor<3> {
    match bias {
        None => product,
        Some(bias) => {
            let bias = bias.val().cast(product.dtype());
            product + bias.unsqueeze()
        }
    }
}
