//! IIET: iterated implicit Euler with a learned history.
//!
//! Explicit Euler guesses, `G_n(y_{n-1})`; then `r_n` fixed-point corrections refine the guess,
//! each evaluated at a learned mixture of the guess and of every earlier layer's state. The
//! equations are those of [`Multistep`].
//!
//! Liu et al., *IIET: Efficient Numerical Transformer via Implicit Iterative Euler Method*,
//! EMNLP 2025 (arXiv 2509.22463), section 3.

#[cfg(feature = "burn")]
use burn::{module::Module, tensor::Device};
use serde::{Deserialize, Serialize};

#[cfg(not(feature = "burn"))]
use crate::FixedMultistep as Coefficients;
use crate::{
    IterationSchedule, Layer, Multistep, OdeError, Options, Solver, State, Trajectory, VectorField,
};
#[cfg(feature = "burn")]
use crate::{LearnedHistory as Coefficients, NetworkSolver, Parameter, Parameters};

/// The options of `iterative_implicit_euler`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IterativeImplicitEulerOptions {
    /// The number of corrections in each layer.
    pub iterations: IterationSchedule,
}

impl Options for IterativeImplicitEulerOptions {
    const NAMES: &'static [&'static str] = &["iterative_implicit_euler"];

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

/// `1 + r_n` evaluations in layer n; what order it reaches is learned.
#[derive(Debug)]
#[cfg_attr(feature = "burn", derive(Module))]
#[cfg_attr(not(feature = "burn"), derive(Clone))]
pub struct IterativeImplicitEuler<H = Coefficients> {
    /// `w`, `wc` and the norms.
    pub history: H,
    /// The number of corrections in each layer.
    #[cfg_attr(feature = "burn", module(skip))]
    pub iterations: IterationSchedule,
}

impl<H> IterativeImplicitEuler<H> {
    fn guess_and_correct<S: State>(
        &self,
        field: &mut impl VectorField<S>,
        at: Trajectory<S, Vec<S>>,
        h: f64,
        watch: Option<&mut dyn FnMut(S)>,
    ) -> Trajectory<S, Vec<S>>
    where
        H: Multistep<S>,
    {
        let r = self.iterations.at(at.layer);
        let guess = field.euler(at.y.clone(), h);
        self.history.correct(field, at, guess, r, h, watch)
    }
}

impl<S: State, H: Multistep<S>> Solver<S> for IterativeImplicitEuler<H> {
    /// The states `s_0, s_1, ..` that the layers so far settled on.
    type Memory = Vec<S>;

    fn memory(&self) -> Vec<S> {
        Vec::new()
    }

    fn step(
        &self,
        field: &mut impl VectorField<S>,
        at: Trajectory<S, Vec<S>>,
        h: f64,
    ) -> Trajectory<S, Vec<S>> {
        self.guess_and_correct(field, at, h, None)
    }

    fn step_watched(
        &self,
        field: &mut impl VectorField<S>,
        at: Trajectory<S, Vec<S>>,
        h: f64,
        watch: &mut dyn FnMut(S),
    ) -> Trajectory<S, Vec<S>> {
        self.guess_and_correct(field, at, h, Some(watch))
    }

    fn evaluations(&self, layer: Layer) -> usize {
        1 + self.iterations.at(layer)
    }

    fn order(&self) -> Option<usize> {
        None
    }
}

#[cfg(feature = "burn")]
impl Parameters for IterativeImplicitEuler {
    fn parameter(path: &[&str]) -> Option<Parameter> {
        match path {
            ["history", path @ ..] => Coefficients::parameter(path),
            _ => None,
        }
    }
}

#[cfg(feature = "burn")]
impl NetworkSolver for IterativeImplicitEuler {
    type Options = IterativeImplicitEulerOptions;

    fn init(
        options: &IterativeImplicitEulerOptions,
        depth: usize,
        d_model: usize,
        device: &Device,
    ) -> Self {
        Self {
            history: Coefficients::init(depth, d_model, device),
            iterations: options.iterations.clone(),
        }
    }

    fn options(&self) -> IterativeImplicitEulerOptions {
        let iterations = self.iterations.clone();
        IterativeImplicitEulerOptions { iterations }
    }
}
