//! Textbook implicit Euler, solved by fixed-point iteration.
//!
//! `z^(0) = y + h F(y)`, `z^(i) = y + h F(z^(i-1))` for i = 1..r, `y_n = z^(r)`.
//!
//! The iteration contracts towards the solution of `z = y + h F(z)` at the rate `h |dF/dy|`, and
//! diverges where that exceeds one. With r = 0 it is explicit Euler.

use burn::module::Module;
use burn::tensor::Device;

use crate::solver::Layered;
use crate::{
    IterationSchedule, Solver, SolverOption, SolverOptions, State, Trajectory, VectorField,
};

/// `1 + r_n` evaluations in layer n, order 1.
#[derive(Module, Debug)]
pub struct ImplicitEuler {
    /// The number of corrections in each layer.
    #[module(skip)]
    pub iterations: IterationSchedule,
}

impl<S: State> Solver<S> for ImplicitEuler {
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
        let r = self.iterations.at(at.n + 1);
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

    fn evaluations(&self, n: usize) -> usize {
        1 + self.iterations.at(n)
    }

    fn order(&self) -> Option<usize> {
        Some(1)
    }
}

impl Layered for ImplicitEuler {
    const READS: &'static [SolverOption] = &[SolverOption::Iterations];

    fn init(options: &SolverOptions, _layers: usize, _: usize, _: &Device) -> Self {
        let iterations = options.iterations.clone();
        Self { iterations }
    }
}
