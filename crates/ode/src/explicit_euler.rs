//! Explicit Euler, `y_n = G_n(y_{n-1})`: the residual layer, and so the LLaMA layer.

use burn::module::Module;
use burn::tensor::Device;

use crate::solver::Layered;
use crate::{Solver, SolverOption, SolverOptions, State, Trajectory, VectorField};

/// One evaluation a step, order 1.
#[derive(Module, Debug)]
pub struct ExplicitEuler {}

impl<S: State> Solver<S> for ExplicitEuler {
    fn step(&self, field: &mut impl VectorField<S>, at: Trajectory<S>, h: f64) -> Trajectory<S> {
        at.advance(|y| field.euler(y, h))
    }

    fn evaluations(&self, _n: usize) -> usize {
        1
    }

    fn order(&self) -> Option<usize> {
        Some(1)
    }
}

impl Layered for ExplicitEuler {
    const READS: &'static [SolverOption] = &[];

    fn init(_: &SolverOptions, _layers: usize, _: usize, _: &Device) -> Self {
        Self {}
    }
}
