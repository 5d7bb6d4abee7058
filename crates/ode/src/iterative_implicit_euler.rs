//! IIET: iterated implicit Euler with a learned history.
//!
//! Explicit Euler guesses, `G_n(y_{n-1})`; then `r_n` fixed-point corrections refine the guess,
//! each evaluated at a learned mixture of the guess and of every earlier layer's state. The
//! equations are those of [`Multistep`].
//!
//! Liu et al., *IIET: Efficient Numerical Transformer via Implicit Iterative Euler Method*,
//! EMNLP 2025 (arXiv 2509.22463), section 3.

use burn::module::Module;
use burn::tensor::Device;

use crate::solver::Layered;
use crate::{
    IterationSchedule, LearnedHistory, Multistep, Solver, SolverOption, SolverOptions, State,
    Trajectory, VectorField,
};

/// `1 + r_n` evaluations in layer n; what order it reaches is learned.
#[derive(Module, Debug)]
pub struct IterativeImplicitEuler<H = LearnedHistory> {
    /// `w`, `wc` and the norms.
    pub history: H,
    /// The number of corrections in each layer.
    #[module(skip)]
    pub iterations: IterationSchedule,
}

impl<H> IterativeImplicitEuler<H> {
    fn guess_and_correct<S: State>(
        &self,
        field: &mut impl VectorField<S>,
        at: Trajectory<S>,
        h: f64,
        watch: Option<&mut dyn FnMut(S)>,
    ) -> Trajectory<S>
    where
        H: Multistep<S>,
    {
        let r = self.iterations.at(at.n + 1);
        let guess = field.euler(at.y.clone(), h);
        self.history.correct(field, at, guess, r, h, watch)
    }
}

impl<S: State, H: Multistep<S>> Solver<S> for IterativeImplicitEuler<H> {
    fn step(&self, field: &mut impl VectorField<S>, at: Trajectory<S>, h: f64) -> Trajectory<S> {
        self.guess_and_correct(field, at, h, None)
    }

    fn step_watched(
        &self,
        field: &mut impl VectorField<S>,
        at: Trajectory<S>,
        h: f64,
        watch: &mut dyn FnMut(S),
    ) -> Trajectory<S> {
        self.guess_and_correct(field, at, h, Some(watch))
    }

    fn evaluations(&self, n: usize) -> usize {
        1 + self.iterations.at(n)
    }

    fn order(&self) -> Option<usize> {
        None
    }
}

impl Layered for IterativeImplicitEuler {
    const READS: &'static [SolverOption] = &[SolverOption::Iterations];

    fn init(options: &SolverOptions, layers: usize, d_model: usize, device: &Device) -> Self {
        Self {
            history: LearnedHistory::init(layers, d_model, device),
            iterations: options.iterations.clone(),
        }
    }
}
