//! Explicit Euler, `y_n = G_n(y_{n-1})`: the residual layer, and so the LLaMA layer.

#[cfg(feature = "burn")]
use burn::{module::Module, tensor::Device};
use serde::{Deserialize, Serialize};

use crate::{Layer, Options, Solver, State, Trajectory, VectorField};
#[cfg(feature = "burn")]
use crate::{NetworkSolver, Parameter, Parameters};

/// `explicit_euler` has no options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplicitEulerOptions {}

impl Options for ExplicitEulerOptions {
    const NAMES: &'static [&'static str] = &["explicit_euler"];
}

/// One evaluation per step, order 1.
#[derive(Debug)]
#[cfg_attr(feature = "burn", derive(Module))]
#[cfg_attr(not(feature = "burn"), derive(Clone))]
pub struct ExplicitEuler {}

impl<S: State> Solver<S> for ExplicitEuler {
    type Memory = ();

    fn memory(&self) {}

    fn step(&self, field: &mut impl VectorField<S>, at: Trajectory<S>, h: f64) -> Trajectory<S> {
        at.advance(|y| field.euler(y, h))
    }

    fn evaluations(&self, _: Layer) -> usize {
        1
    }

    fn order(&self) -> Option<usize> {
        Some(1)
    }
}

#[cfg(feature = "burn")]
impl Parameters for ExplicitEuler {
    fn parameter(_: &[&str]) -> Option<Parameter> {
        None
    }
}

#[cfg(feature = "burn")]
impl NetworkSolver for ExplicitEuler {
    type Options = ExplicitEulerOptions;

    fn init(_: &ExplicitEulerOptions, _depth: usize, _d_model: usize, _: &Device) -> Self {
        Self {}
    }

    fn options(&self) -> ExplicitEulerOptions {
        ExplicitEulerOptions {}
    }
}
