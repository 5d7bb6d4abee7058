//! Solvers of `dy/dt = F(y)`, written once for numbers, vectors and batches of hidden states.
//!
//! A residual layer `y + F(y)` is one explicit Euler step of size 1. Everything here follows from
//! taking that seriously: a [`VectorField`] says what `F` is, a [`Solver`] takes one step of it,
//! and a network of N layers is N steps through N fields. The code that a transformer runs on
//! `[batch, seq, d_model]` tensors is the code whose order of convergence the tests measure on
//! `f64`.
//!
//! | solver | one step | evaluations | order |
//! | --- | --- | --- | --- |
//! | [`ExplicitEuler`] | `y + h F(y)` | 1 | 1 |
//! | [`RungeKutta`] | a classical tableau | 2 or 4 | 2 or 4 |
//! | [`ImplicitEuler`] | `z = y + h F(z)` by fixed-point iteration | 1 + r | 1 |
//! | [`PredictorCorrector`] | Runge-Kutta guess, learned multistep correction | order + 1 | learned |
//! | [`IterativeImplicitEuler`] | Euler guess, r learned multistep corrections | 1 + r | learned |
//!
//! What a method carries from step to step is the [`Trajectory`], passed in and returned. How many
//! corrections a step takes is data, an [`IterationSchedule`].
//!
//! ```
//! use iiet_ode::{ImplicitEuler, IterationSchedule, Solver, Trajectory};
//!
//! // y' = -y from y(0) = 1, ten steps of 0.1.
//! let solver = ImplicitEuler { iterations: IterationSchedule::Uniform(30) };
//! let mut at = Trajectory::start(1.0);
//! for _ in 0..10 {
//!     at = solver.step(&mut |y: f64| -y, at, 0.1);
//! }
//! let by_hand = 1.0 / 1.1f64.powi(10);
//! assert!((at.y - by_hand).abs() < 1e-12);
//! ```

mod explicit_euler;
mod field;
mod implicit_euler;
mod iterative_implicit_euler;
mod learned_history;
mod multistep;
mod predictor_corrector;
mod runge_kutta;
mod schedule;
mod solver;
mod state;

pub use explicit_euler::ExplicitEuler;
pub use field::VectorField;
pub use implicit_euler::ImplicitEuler;
pub use iterative_implicit_euler::IterativeImplicitEuler;
pub use learned_history::LearnedHistory;
pub use multistep::{FixedMultistep, Multistep};
pub use predictor_corrector::{EmaStages, FixedEma, LearnedEma, PredictorCorrector};
pub use runge_kutta::{RungeKutta, Tableau};
pub use schedule::IterationSchedule;
pub use solver::{
    AnySolver, OdeError, Solver, SolverConfig, SolverName, SolverOption, SolverOptions, Trajectory,
};
pub use state::State;
