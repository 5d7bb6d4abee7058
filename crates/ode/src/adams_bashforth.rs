//! Two-step Adams-Bashforth: an explicit method of order 2 with one evaluation per layer.
//!
//! `y_n = y_{n-1} + h (3/2 F_n(y_{n-1}) - 1/2 F_{n-1}(y_{n-2}))`
//!
//! Its memory is one slope. The first step has none and uses another method: explicit Euler, whose
//! single error of order h^2 keeps the order at 2, or Heun's method with one more evaluation.
//!
//! Hairer, Norsett and Wanner, *Solving Ordinary Differential Equations I*, section III.1.

#[cfg(feature = "burn")]
use burn::{module::Module, tensor::Device};
use serde::{Deserialize, Serialize};

use crate::{Layer, Options, Solver, State, Trajectory, VectorField};
#[cfg(feature = "burn")]
use crate::{NetworkSolver, Parameter, Parameters};

/// The method of the first step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FirstStep {
    /// `y_1 = y_0 + h F_1(y_0)`.
    #[default]
    Euler,
    /// `y_1 = y_0 + h/2 (F_1(y_0) + F_1(y_0 + h F_1(y_0)))`.
    Heun,
}

/// The options of `adams_bashforth`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamsBashforthOptions {
    /// The method of the first step: `"euler"` or `"heun"`.
    pub first_step: FirstStep,
}

impl Options for AdamsBashforthOptions {
    const NAMES: &'static [&'static str] = &["adams_bashforth"];
}

/// One evaluation per step, order 2.
#[derive(Debug)]
#[cfg_attr(feature = "burn", derive(Module))]
#[cfg_attr(not(feature = "burn"), derive(Clone))]
pub struct AdamsBashforth {
    /// The method of the first step.
    #[cfg_attr(feature = "burn", module(skip))]
    pub first_step: FirstStep,
}

impl<S: State> Solver<S> for AdamsBashforth {
    /// The slope of the previous step.
    type Memory = Option<S>;

    fn memory(&self) -> Option<S> {
        None
    }

    fn step(
        &self,
        field: &mut impl VectorField<S>,
        at: Trajectory<S, Option<S>>,
        h: f64,
    ) -> Trajectory<S, Option<S>> {
        let Trajectory { y, layer, memory } = at;
        let slope = field.slope(y.clone());
        let next = match (memory, self.first_step) {
            (Some(before), _) => y.axpy(1.5 * h, slope.clone()).axpy(-0.5 * h, before),
            (None, FirstStep::Euler) => y.axpy(h, slope.clone()),
            (None, FirstStep::Heun) => {
                let there = field.slope(y.clone().axpy(h, slope.clone()));
                y.axpy(0.5 * h, slope.clone()).axpy(0.5 * h, there)
            }
        };
        Trajectory {
            y: next,
            layer: layer.next(),
            memory: Some(slope),
        }
    }

    fn evaluations(&self, layer: Layer) -> usize {
        match (layer, self.first_step) {
            (Layer::FIRST, FirstStep::Heun) => 2,
            _ => 1,
        }
    }

    fn order(&self) -> Option<usize> {
        Some(2)
    }
}

#[cfg(feature = "burn")]
impl Parameters for AdamsBashforth {
    fn parameter(_: &[&str]) -> Option<Parameter> {
        None
    }
}

#[cfg(feature = "burn")]
impl NetworkSolver for AdamsBashforth {
    type Options = AdamsBashforthOptions;

    fn init(options: &AdamsBashforthOptions, _depth: usize, _d_model: usize, _: &Device) -> Self {
        let first_step = options.first_step;
        Self { first_step }
    }

    fn options(&self) -> AdamsBashforthOptions {
        let first_step = self.first_step;
        AdamsBashforthOptions { first_step }
    }
}
