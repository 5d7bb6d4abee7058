//! One step of AdamW on one parameter, and the square of a gradient's norm for clipping.
//!
//! Loshchilov and Hutter, *Decoupled Weight Decay Regularization* (arXiv 1711.05101), algorithm 2.
//! With the gradient `g` scaled, for update number t,
//!
//! ```text
//! m <- beta_1 m + (1 - beta_1) g        v <- beta_2 v + (1 - beta_2) g^2
//! p <- (1 - lr decay) p - lr m / (1 - beta_1^t) / (sqrt(v / (1 - beta_2^t)) + eps)
//! ```
//!
//! One pass over memory, in place if the tensors are not shared. As a chain of tensor operations
//! this would be a dozen passes with a temporary after each.

#[cfg(feature = "flex")]
mod flex;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};
use burn::tensor::{Shape, Tensor};

use crate::route::{composed, operation, routed};

/// The hyperparameters of one step of AdamW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta_1: f64,
    /// Decay of the second moment.
    pub beta_2: f64,
    /// Added to the root of the second moment, for stability.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Factor for the gradient: clipping, or a mean instead of a sum.
    pub scale: f64,
    /// The index of this update, from 1.
    pub update: usize,
}

/// A parameter with its two moments.
#[derive(Debug, Clone)]
pub struct WithMoments<const D: usize> {
    /// The parameter.
    pub parameter: Tensor<D>,
    /// Mean of gradients, `m`.
    pub first: Tensor<D>,
    /// Mean of squared gradients, `v`.
    pub second: Tensor<D>,
}

/// The hyperparameters as the formula uses them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Factors {
    pub(crate) scale: f64,
    pub(crate) beta_1: f64,
    pub(crate) beta_2: f64,
    /// `1 - lr decay`
    pub(crate) keep: f64,
    /// `lr / (1 - beta_1^t)`
    pub(crate) rate: f64,
    /// `1 / sqrt(1 - beta_2^t)`
    pub(crate) spread: f64,
    pub(crate) eps: f64,
}

impl AdamWStep {
    pub(crate) fn factors(&self) -> Factors {
        let t = self.update as f64;
        Factors {
            scale: self.scale,
            beta_1: self.beta_1,
            beta_2: self.beta_2,
            keep: 1.0 - self.lr * self.weight_decay,
            rate: self.lr / (1.0 - self.beta_1.powf(t)),
            spread: 1.0 / (1.0 - self.beta_2.powf(t)).sqrt(),
            eps: self.eps,
        }
    }
}

/// Takes one step of AdamW along a gradient. Before the first step both moments are zero.
///
/// On flex the tensors are updated in place if their memory is not shared.
///
/// # Shapes
///
/// - gradient, parameter and moments: all equal
///
/// # Panics
///
/// If the shapes differ, or `update` is 0.
pub fn adamw<const D: usize>(
    state: WithMoments<D>,
    gradient: Tensor<D>,
    step: &AdamWStep,
) -> WithMoments<D> {
    let WithMoments {
        parameter,
        first,
        second,
    } = state;
    let shape = parameter.dims();
    assert!(
        gradient.dims() == shape && first.dims() == shape && second.dims() == shape,
        "adamw: parameter {shape:?}, gradient {:?} and moments {:?}, {:?} differ in shape",
        gradient.dims(),
        first.dims(),
        second.dims()
    );
    assert!(step.update > 0, "adamw: updates count from 1");
    let (parameter, gradient) = (parameter.into_dispatch(), gradient.into_dispatch());
    let (first, second) = (first.into_dispatch(), second.into_dispatch());
    let (parameter, first, second) = routed!(
        AdamW::adamw(parameter, gradient, first, second, *step),
        else updated
    );
    WithMoments {
        parameter: Tensor::from_dispatch(parameter),
        first: Tensor::from_dispatch(first),
        second: Tensor::from_dispatch(second),
    }
}

/// The sum of the squares of all entries, `[1]`.
pub fn sum_of_squares<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let x = x.into_dispatch();
    Tensor::from_dispatch(routed!(AdamW::sum_of_squares(x), else squares))
}

operation! {
    /// The optimiser's arithmetic over a backend's own tensors.
    pub trait AdamW: Backend {
        /// The parameter and its two moments after a step.
        fn adamw(
            parameter: FloatTensor<Self>,
            gradient: FloatTensor<Self>,
            first: FloatTensor<Self>,
            second: FloatTensor<Self>,
            step: AdamWStep,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
            updated::<Self>(parameter, gradient, first, second, step)
        }

        fn sum_of_squares(x: FloatTensor<Self>) -> FloatTensor<Self> {
            squares::<Self>(x)
        }
    }
}

composed!(AdamW: NdArray, Cube);

// The optimiser is usually not differentiated. If it is, Burn records the composed bodies.
impl<B: AdamW, C: CheckpointStrategy> AdamW for Autodiff<B, C> {}

fn updated<B: Backend>(
    parameter: FloatTensor<B>,
    gradient: FloatTensor<B>,
    first: FloatTensor<B>,
    second: FloatTensor<B>,
    step: AdamWStep,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let f = step.factors();
    let times = |x: FloatTensor<B>, factor: f64| B::float_mul_scalar(x, factor.into());
    let g = times(gradient, f.scale);
    let square = B::float_mul(g.clone(), g.clone());
    let first = B::float_add(times(first, f.beta_1), times(g, 1.0 - f.beta_1));
    let second = B::float_add(times(second, f.beta_2), times(square, 1.0 - f.beta_2));
    let spread = times(B::float_sqrt(second.clone()), f.spread);
    let spread = B::float_add_scalar(spread, f.eps.into());
    let change = B::float_div(times(first.clone(), f.rate), spread);
    (
        B::float_sub(times(parameter, f.keep), change),
        first,
        second,
    )
}

fn squares<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let sum = B::float_sum(B::float_mul(x.clone(), x));
    B::float_reshape(sum, Shape::from(vec![1]))
}
