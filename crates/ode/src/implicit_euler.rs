//! Textbook implicit Euler, solved by fixed-point iteration.
//!
//! `z^(0) = y + h F(y)`, `z^(i) = y + h F(z^(i-1))` for i = 1..r, `y_n = z^(r)`.
//!
//! The iteration contracts towards the solution of `z = y + h F(z)` at the rate `h |dF/dy|`, and
//! diverges where that exceeds one. With r = 0 it is explicit Euler.

#[cfg(feature = "burn")]
use burn::{module::Module, tensor::Device};
use serde::{Deserialize, Serialize};

use crate::{IterationSchedule, Layer, OdeError, Options, Solver, State, Trajectory, VectorField};
#[cfg(feature = "burn")]
use crate::{NetworkSolver, Parameter, Parameters};

/// The options of `implicit_euler`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImplicitEulerOptions {
    /// The number of corrections in each layer.
    pub iterations: IterationSchedule,
}

impl Options for ImplicitEulerOptions {
    const NAMES: &'static [&'static str] = &["implicit_euler"];

    fn validate(&self, depth: usize) -> Result<(), OdeError> {
        self.iterations.check(depth)
    }

    fn iterations(&self) -> Option<&IterationSchedule> {
        Some(&self.iterations)
    }

    fn iterations_mut(&mut self) -> Option<&mut IterationSchedule> {
        Some(&mut self.iterations)
    }
}

/// `1 + r_n` evaluations in layer n, order 1.
#[derive(Debug)]
#[cfg_attr(feature = "burn", derive(Module))]
#[cfg_attr(not(feature = "burn"), derive(Clone))]
pub struct ImplicitEuler {
    /// The number of corrections in each layer.
    #[cfg_attr(feature = "burn", module(skip))]
    pub iterations: IterationSchedule,
}

impl<S: State> Solver<S> for ImplicitEuler {
    type Memory = ();

    fn memory(&self) {}

    fn step(&self, field: &mut impl VectorField<S>, at: Trajectory<S>, h: f64) -> Trajectory<S> {
        self.step_watched(field, at, h, &mut |_| ())
    }

    fn step_watched(
        &self,
        field: &mut impl VectorField<S>,
        at: Trajectory<S>,
        h: f64,
        watch: &mut dyn FnMut(S),
    ) -> Trajectory<S> {
        let r = self.iterations.at(at.layer);
        at.advance(|y| {
            let mut z = field.euler(y.clone(), h);
            watch(z.clone());
            for _ in 0..r {
                z = y.clone().axpy(h, field.slope(z));
                watch(z.clone());
            }
            z
        })
    }

    fn evaluations(&self, layer: Layer) -> usize {
        1 + self.iterations.at(layer)
    }

    fn order(&self) -> Option<usize> {
        Some(1)
    }
}

#[cfg(feature = "burn")]
impl Parameters for ImplicitEuler {
    fn parameter(_: &[&str]) -> Option<Parameter> {
        None
    }
}

#[cfg(feature = "burn")]
impl NetworkSolver for ImplicitEuler {
    type Options = ImplicitEulerOptions;

    fn init(options: &ImplicitEulerOptions, _depth: usize, _d_model: usize, _: &Device) -> Self {
        let iterations = options.iterations.clone();
        Self { iterations }
    }

    fn options(&self) -> ImplicitEulerOptions {
        let iterations = self.iterations.clone();
        ImplicitEulerOptions { iterations }
    }

    fn adopt(&mut self, options: &ImplicitEulerOptions) {
        self.iterations = options.iterations.clone();
    }
}
