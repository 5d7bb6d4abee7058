//! The seam: one step of any method, and the enum of those that a model can name.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{
    ExplicitEuler, ImplicitEuler, IterationSchedule, IterativeImplicitEuler, PredictorCorrector,
    RungeKutta, State, VectorField,
};

/// Where an integration stands: all that one step hands to the next.
#[derive(Debug, Clone, PartialEq)]
pub struct Trajectory<S> {
    /// The current state, `y_n`.
    pub y: S,
    /// The number of steps taken, `n`.
    pub n: usize,
    /// What a multistep method remembers, `s_0, .., s_n`; empty for a one-step method.
    pub history: Vec<S>,
}

impl<S> Trajectory<S> {
    /// Before the first step, at `y_0`.
    pub fn start(y: S) -> Self {
        let (n, history) = (0, Vec::new());
        Self { y, n, history }
    }

    /// One step further: `y_{n+1} = step(y_n)`.
    pub fn advance(self, step: impl FnOnce(S) -> S) -> Self {
        Self {
            y: step(self.y),
            n: self.n + 1,
            history: self.history,
        }
    }
}

/// A method that advances `dy/dt = F(y)` by one step.
pub trait Solver<S: State> {
    /// From `at` to the next state, through the field of layer `at.n + 1`, with step size `h`.
    fn step(&self, field: &mut impl VectorField<S>, at: Trajectory<S>, h: f64) -> Trajectory<S>;

    /// [`step`](Self::step), which shows on its way what it would give if it stopped early:
    /// `yhat^(i)`, the output after i corrections, for i = 0, .., r. The last is the result.
    ///
    /// A method that takes no corrections, or always the same number, shows its result alone.
    fn step_watched(
        &self,
        field: &mut impl VectorField<S>,
        at: Trajectory<S>,
        h: f64,
        watch: &mut dyn FnMut(S),
    ) -> Trajectory<S> {
        let next = self.step(field, at, h);
        watch(next.y.clone());
        next
    }

    /// How often the step of layer n, counted from 1, evaluates the field.
    fn evaluations(&self, n: usize) -> usize;

    /// The classical order of convergence, or `None` where coefficients are learned.
    fn order(&self) -> Option<usize>;
}

/// A solver that a network can be built with: it may own parameters for each layer.
pub(crate) trait Layered: Module {
    /// The options that this solver reads; the others do not concern it.
    const READS: &'static [SolverOption];

    /// The solver with fresh parameters. The options have been validated.
    fn init(options: &SolverOptions, layers: usize, d_model: usize, device: &Device) -> Self;
}

/// The fields of [`SolverOptions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SolverOption {
    /// [`SolverOptions::iterations`].
    Iterations,
    /// [`SolverOptions::predictor_order`].
    PredictorOrder,
}

/// What the solvers can be told; each reads what concerns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SolverOptions {
    /// Corrections of the implicit methods.
    pub iterations: IterationSchedule,
    /// Order of the Runge-Kutta method or of the predictor, 2 or 4.
    pub predictor_order: usize,
}

impl Default for SolverOptions {
    /// Three corrections, the paper's main models; order 2.
    fn default() -> Self {
        Self {
            iterations: IterationSchedule::Uniform(3),
            predictor_order: 2,
        }
    }
}

/// A solver by name, with its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SolverConfig {
    /// Which method.
    pub name: SolverName,
    /// Its numbers.
    pub options: SolverOptions,
}

impl SolverConfig {
    /// Whether the solver can be built for so many layers.
    ///
    /// # Errors
    ///
    /// [`OdeError`] if the options do not fit the solver or the number of layers.
    pub fn validate(&self, layers: usize) -> Result<(), OdeError> {
        let SolverOptions {
            iterations,
            predictor_order,
        } = &self.options;
        if self.name.reads(SolverOption::Iterations) {
            iterations.check(layers)?;
        }
        if self.name.reads(SolverOption::PredictorOrder) && ![2, 4].contains(predictor_order) {
            return Err(OdeError::PredictorOrder {
                found: *predictor_order,
            });
        }
        Ok(())
    }
}

/// A configuration that no solver accepts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OdeError {
    /// Runge-Kutta and the predictor exist in two orders.
    #[error("predictor_order is {found}; allowed: 2, 4")]
    PredictorOrder {
        /// The order asked for.
        found: usize,
    },
    /// A schedule that would take a layer's evaluations, and a cache for each, without bound.
    #[error(
        "iterations is {found} in a layer; allowed: 0 to {}",
        IterationSchedule::MAX_CORRECTIONS
    )]
    Corrections {
        /// The largest number of corrections in the schedule.
        found: usize,
    },
    /// A schedule for a network of another depth.
    #[error("iterations lists {found} layers, the model has {layers}")]
    ScheduleLength {
        /// Layers in the list.
        found: usize,
        /// Layers in the model.
        layers: usize,
    },
}

/// Writes the enum of names, the enum of modules and the dispatch between them.
macro_rules! solvers {
    ($($(#[$doc:meta])* $solver:ident,)+) => {
        /// The solvers by the names that configurations use, such as `explicit_euler`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum SolverName {
            $($(#[$doc])* $solver,)+
        }

        impl SolverName {
            /// Every solver there is.
            pub const ALL: &[SolverName] = &[$(SolverName::$solver,)+];

            /// Whether the option concerns this solver.
            pub fn reads(self, option: SolverOption) -> bool {
                match self {
                    $(Self::$solver => <$solver as Layered>::READS.contains(&option),)+
                }
            }
        }

        /// Any of the solvers, as one module.
        #[derive(Module, Debug)]
        #[allow(clippy::large_enum_variant)]
        pub enum AnySolver {
            $($(#[$doc])* $solver($solver),)+
        }

        impl SolverConfig {
            /// The solver with fresh parameters for `layers` layers of width `d_model`.
            ///
            /// # Errors
            ///
            /// [`OdeError`] if the options do not fit the solver or the number of layers.
            pub fn init(
                &self,
                layers: usize,
                d_model: usize,
                device: &Device,
            ) -> Result<AnySolver, OdeError> {
                self.validate(layers)?;
                Ok(match self.name {
                    $(SolverName::$solver => {
                        let solver = Layered::init(&self.options, layers, d_model, device);
                        AnySolver::$solver(solver)
                    })+
                })
            }
        }

        impl<const D: usize> Solver<Tensor<D>> for AnySolver {
            fn step(
                &self,
                field: &mut impl VectorField<Tensor<D>>,
                at: Trajectory<Tensor<D>>,
                h: f64,
            ) -> Trajectory<Tensor<D>> {
                match self {
                    $(Self::$solver(solver) => solver.step(field, at, h),)+
                }
            }

            fn step_watched(
                &self,
                field: &mut impl VectorField<Tensor<D>>,
                at: Trajectory<Tensor<D>>,
                h: f64,
                watch: &mut dyn FnMut(Tensor<D>),
            ) -> Trajectory<Tensor<D>> {
                match self {
                    $(Self::$solver(solver) => solver.step_watched(field, at, h, watch),)+
                }
            }

            fn evaluations(&self, n: usize) -> usize {
                match self {
                    $(Self::$solver(solver) => Solver::<Tensor<D>>::evaluations(solver, n),)+
                }
            }

            fn order(&self) -> Option<usize> {
                match self {
                    $(Self::$solver(solver) => Solver::<Tensor<D>>::order(solver),)+
                }
            }
        }
    };
}

solvers! {
    /// Transformer++, the LLaMA layer.
    ExplicitEuler,
    /// ODE Transformer.
    RungeKutta,
    /// PCformer.
    PredictorCorrector,
    /// Textbook implicit Euler.
    ImplicitEuler,
    /// IIET.
    IterativeImplicitEuler,
}

impl AnySolver {
    /// How often layer n, counted from 1, evaluates its block, whatever the rank of the states.
    pub fn evaluations(&self, n: usize) -> usize {
        Solver::<Tensor<3>>::evaluations(self, n)
    }
}
