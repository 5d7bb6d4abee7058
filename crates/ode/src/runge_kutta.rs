//! Explicit Runge-Kutta methods on the block's vector field: the ODE Transformer.
//!
//! `k_i = F(y + h sum_{j<i} a_ij k_j)`, `y_n = y + h sum_i b_i k_i`.
//!
//! Li et al., *ODE Transformer*, ACL 2022 (arXiv 2203.09176), with the classical coefficients of
//! Hairer, Norsett and Wanner, *Solving Ordinary Differential Equations I*, section II.1.

#[cfg(feature = "burn")]
use burn::{module::Module, tensor::Device};
use serde::{Deserialize, Serialize};

use crate::options::check_order;
use crate::{Layer, OdeError, Options, Solver, State, Trajectory, VectorField};
#[cfg(feature = "burn")]
use crate::{NetworkSolver, Parameter, Parameters};

/// The options of `runge_kutta`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RungeKuttaOptions {
    /// The order of the method, 2 or 4. (The name is that of published configurations, which share
    /// it with the predictor.)
    pub predictor_order: usize,
}

impl Default for RungeKuttaOptions {
    fn default() -> Self {
        Self { predictor_order: 2 }
    }
}

impl Options for RungeKuttaOptions {
    const NAMES: &'static [&'static str] = &["runge_kutta"];

    fn validate(&self, _: usize) -> Result<(), OdeError> {
        check_order(self.predictor_order)
    }
}

/// The coefficients of an explicit Runge-Kutta method.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tableau {
    /// Order of the error in `h`.
    pub order: usize,
    /// Row i holds `a_ij` for `j < i`; the first row is empty.
    pub a: &'static [&'static [f64]],
    /// `b_i`, one per stage.
    pub b: &'static [f64],
}

impl Tableau {
    /// Heun's method of order 2, the explicit trapezoidal rule.
    pub const HEUN: Tableau = Tableau {
        order: 2,
        a: &[&[], &[1.0]],
        b: &[0.5, 0.5],
    };

    /// The classical method of order 4.
    pub const CLASSICAL: Tableau = Tableau {
        order: 4,
        a: &[&[], &[0.5], &[0.0, 0.5], &[0.0, 0.0, 1.0]],
        b: &[1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0],
    };
}

/// One evaluation per stage of the tableau.
#[derive(Debug)]
#[cfg_attr(feature = "burn", derive(Module))]
#[cfg_attr(not(feature = "burn"), derive(Clone))]
pub struct RungeKutta {
    /// The method's coefficients.
    #[cfg_attr(feature = "burn", module(skip))]
    pub tableau: Tableau,
}

impl<S: State> Solver<S> for RungeKutta {
    type Memory = ();

    fn memory(&self) {}

    fn step(&self, field: &mut impl VectorField<S>, at: Trajectory<S>, h: f64) -> Trajectory<S> {
        let Tableau { a, b, .. } = self.tableau;
        at.advance(|y| {
            let mut k: Vec<S> = Vec::with_capacity(b.len());
            for a_i in a {
                let z = add_weighted(y.clone(), h, a_i, &k);
                k.push(field.slope(z));
            }
            add_weighted(y, h, b, &k)
        })
    }

    fn evaluations(&self, _: Layer) -> usize {
        self.tableau.b.len()
    }

    fn order(&self) -> Option<usize> {
        Some(self.tableau.order)
    }
}

/// `y + h sum_i c_i k_i`, without the terms whose coefficient is zero.
fn add_weighted<S: State>(y: S, h: f64, c: &[f64], k: &[S]) -> S {
    c.iter()
        .zip(k)
        .filter(|(c_i, _)| **c_i != 0.0)
        .fold(y, |z, (c_i, k_i)| z.axpy(h * c_i, k_i.clone()))
}

#[cfg(feature = "burn")]
impl Parameters for RungeKutta {
    fn parameter(_: &[&str]) -> Option<Parameter> {
        None
    }
}

#[cfg(feature = "burn")]
impl NetworkSolver for RungeKutta {
    type Options = RungeKuttaOptions;

    fn init(options: &RungeKuttaOptions, _depth: usize, _d_model: usize, _: &Device) -> Self {
        let tableau = match options.predictor_order {
            2 => Tableau::HEUN,
            _ => Tableau::CLASSICAL,
        };
        Self { tableau }
    }

    fn options(&self) -> RungeKuttaOptions {
        let predictor_order = self.tableau.order;
        RungeKuttaOptions { predictor_order }
    }
}
