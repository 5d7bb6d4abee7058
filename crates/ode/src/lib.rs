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
//! | [`AdamsBashforth`] | `y + h (3/2 F(y) - 1/2 F_before)` | 1 | 2 |
//! | [`ImplicitEuler`] | `z = y + h F(z)` by fixed-point iteration | 1 + r | 1 |
//! | [`PredictorCorrector`] | Runge-Kutta guess, learned multistep correction | order + 1 | learned |
//! | [`IterativeImplicitEuler`] | Euler guess, r learned multistep corrections | 1 + r | learned |
//!
//! What a method carries from step to step is its [`Memory`], passed in and returned within the
//! [`Trajectory`]. How many corrections a step takes is data, an [`IterationSchedule`].
//!
//! Without the feature `burn`, which is on by default, the crate has no tensors: the methods then
//! work on `f64`, on arrays, and on whatever else implements [`State`], and compile in seconds. With
//! it come tensors as states, learned coefficients ([`LearnedHistory`], [`LearnedEma`]), and the
//! solvers by name ([`SolverConfig`], [`AnySolver`]) and as parts of a network
//! ([`NetworkSolver`]).
//!
//! ```
//! use iiet_ode::{ImplicitEuler, IterationSchedule, Solver};
//!
//! // y' = -y from y(0) = 1, ten steps of 0.1.
//! let solver = ImplicitEuler::new(IterationSchedule::Uniform(30));
//! let mut at = solver.start(1.0);
//! for _ in 0..10 {
//!     at = solver.step(&mut |y: f64| -y, at, 0.1);
//! }
//! let by_hand = 1.0 / 1.1f64.powi(10);
//! assert!((at.y - by_hand).abs() < 1e-12);
//! ```

mod adams_bashforth;
mod anderson;
#[cfg(feature = "burn")]
mod any;
mod error;
mod explicit_euler;
mod field;
mod fixed_point;
mod history_start;
mod implicit_euler;
mod iterative_implicit_euler;
mod layer;
#[cfg(feature = "burn")]
mod learned_ema;
#[cfg(feature = "burn")]
mod learned_history;
mod memory;
mod multistep;
#[cfg(feature = "burn")]
mod network;
mod options;
#[cfg(feature = "burn")]
mod parameter;
mod predictor_corrector;
mod runge_kutta;
mod schedule;
mod solver;
mod state;

pub use adams_bashforth::{AdamsBashforth, AdamsBashforthOptions, FirstStep};
#[cfg(feature = "burn")]
pub use any::{AnyMemory, AnySolver, SolverConfig};
pub use error::OdeError;
pub use explicit_euler::{ExplicitEuler, ExplicitEulerOptions};
pub use field::VectorField;
pub use fixed_point::{FixedPoint, FixedPointMap};
pub use history_start::HistoryStart;
pub use implicit_euler::{Gradient, ImplicitEuler, ImplicitEulerOptions};
pub use iterative_implicit_euler::{IterativeImplicitEuler, IterativeImplicitEulerOptions};
pub use layer::Layer;
#[cfg(feature = "burn")]
pub use learned_ema::LearnedEma;
#[cfg(feature = "burn")]
pub use learned_history::LearnedHistory;
pub use memory::Memory;
pub use multistep::{FixedMultistep, Multistep};
#[cfg(feature = "burn")]
pub use network::NetworkSolver;
pub use options::Options;
#[cfg(feature = "burn")]
pub use parameter::{Parameter, Parameters, Role, Start, norm_parameter};
pub use predictor_corrector::{EmaStages, FixedEma, PredictorCorrector, PredictorCorrectorOptions};
pub use runge_kutta::{RungeKutta, RungeKuttaOptions, Tableau};
pub use schedule::IterationSchedule;
pub use solver::{Solver, Trajectory};
pub use state::State;

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
