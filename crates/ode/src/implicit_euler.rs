//! Textbook implicit Euler, solved by fixed-point iteration.
//!
//! `z^(0) = y + h F(y)`, `z^(i) = y + h F(z^(i-1))` for i = 1..r, `y_n = z^(r)`.
//!
//! The iteration contracts towards the solution of `z = y + h F(z)` at the rate `h |dF/dy|`, and
//! diverges where that exceeds one. With r = 0 it is explicit Euler.

#[cfg(feature = "burn")]
use burn::{module::Module, tensor::Device};
use serde::{Deserialize, Serialize};

use crate::options::{
    check_anderson, check_backprop, check_gradients, check_tolerance, is_default,
};
use crate::{
    FixedPoint, FixedPointMap, IterationSchedule, Layer, OdeError, Options, Solver, State,
    Trajectory, VectorField,
};
#[cfg(feature = "burn")]
use crate::{NetworkSolver, Parameter, Parameters};

/// How the result is differentiated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Gradient {
    /// Through the corrections, as they were computed.
    #[default]
    Unrolled,
    /// That of the fixed point `z = y + h F(z)`, whatever led to it: with `v` the gradient to `z` and
    /// `J = dF/dz`, the gradient to `y` is the fixed point of `u = v + h J^T u`, and that to the
    /// parameters is `h u^T dF/dtheta`. It is iterated r times, as z is, at one evaluation and one
    /// backward pass of the block each; only the last evaluation of the forward pass is kept in
    /// memory. (Bai et al., *Deep Equilibrium Models*, arXiv 1909.01377, theorem 1.)
    Implicit,
}

/// The options of `implicit_euler`. Only `iterations` is in every configuration; the others are written
/// where they differ from their defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImplicitEulerOptions {
    /// The number of corrections in each layer.
    pub iterations: IterationSchedule,
    /// `"unrolled"` or `"implicit"`.
    #[serde(skip_serializing_if = "is_default")]
    pub gradient: Gradient,
    /// The change of a token's state, relative to its size, at which its corrections stop; all are
    /// taken if absent.
    #[serde(skip_serializing_if = "is_default")]
    pub tolerance: Option<f64>,
    /// How many of the last corrections an unrolled gradient flows through; all, and the guess, if
    /// absent. 1 is the one-step gradient.
    #[serde(skip_serializing_if = "is_default")]
    pub backprop: Option<usize>,
    /// The depth of Anderson acceleration; 0 for none.
    #[serde(skip_serializing_if = "is_default")]
    pub anderson: usize,
}

impl Options for ImplicitEulerOptions {
    const NAMES: &'static [&'static str] = &["implicit_euler"];

    fn omitted(&self) -> &'static [&'static str] {
        &["gradient", "tolerance", "backprop", "anderson"]
    }

    fn validate(&self, depth: usize) -> Result<(), OdeError> {
        check_tolerance(self.tolerance)?;
        check_backprop(self.backprop)?;
        check_anderson(self.anderson)?;
        if let (Gradient::Implicit, Some(k)) = (self.gradient, self.backprop) {
            return Err(OdeError::Option {
                key: "backprop",
                found: k.to_string(),
                allowed: "none where gradient is implicit".into(),
            });
        }
        self.iterations.check(depth)
    }

    fn check_training(&self) -> Result<(), OdeError> {
        let implicit = self.gradient == Gradient::Implicit;
        let one_step = implicit || self.backprop == Some(1);
        let truncated = implicit || self.backprop.is_some();
        let remedy = "with gradient = \"implicit\" or backprop = 1";
        check_gradients(self.anderson, self.tolerance, one_step, truncated, remedy)
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
    /// The schedule, and how corrections are taken and differentiated.
    #[cfg_attr(feature = "burn", module(skip))]
    pub options: ImplicitEulerOptions,
}

impl ImplicitEuler {
    /// The textbook's method with so many corrections.
    pub fn new(iterations: IterationSchedule) -> Self {
        let options = ImplicitEulerOptions {
            iterations,
            ..Default::default()
        };
        Self { options }
    }

    /// How the layer's fixed point is iterated.
    fn corrections(&self, layer: Layer) -> FixedPoint {
        FixedPoint {
            iterations: self.options.iterations.at(layer),
            tolerance: self.options.tolerance,
            anderson: self.options.anderson,
            backprop: match self.options.gradient {
                Gradient::Unrolled => self.options.backprop,
                Gradient::Implicit => Some(1),
            },
        }
    }
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
        let corrections = self.corrections(at.layer);
        let implicit = self.options.gradient == Gradient::Implicit && corrections.iterations > 0;
        at.advance(|y| {
            field.record(!corrections.truncates() && !implicit);
            let guess = field.euler(y.clone(), h);
            let known = (corrections.anderson > 0).then(|| (y.clone(), guess.clone()));
            let mut map = Correction {
                y,
                h,
                left: corrections.iterations,
                adjoint: implicit.then_some(FixedPoint {
                    backprop: None,
                    ..corrections
                }),
                field,
            };
            let z = corrections.iterate(&mut map, guess, known, &mut |z: &S| watch(z.clone()));
            watch(z.clone());
            z
        })
    }

    fn evaluations(&self, layer: Layer) -> usize {
        1 + self.options.iterations.at(layer)
    }

    fn recorded_evaluations(&self, layer: Layer) -> usize {
        let recorded = self.corrections(layer).recorded_evaluations();
        // The adjoint iteration runs the block once more at a time.
        recorded + usize::from(self.options.gradient == Gradient::Implicit)
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
        let options = options.clone();
        Self { options }
    }

    fn options(&self) -> ImplicitEulerOptions {
        self.options.clone()
    }

    fn adopt(&mut self, options: &ImplicitEulerOptions) {
        self.options = options.clone();
    }

    fn keeping(&self, layers: &[Layer]) -> Self {
        Self {
            options: ImplicitEulerOptions {
                iterations: self.options.iterations.keeping(layers),
                ..self.options.clone()
            },
        }
    }
}

/// `y + h F(z)`.
struct Correction<'a, S, F> {
    y: S,
    h: f64,
    /// Evaluations to come.
    left: usize,
    /// How the gradient of the last is iterated, if it is that of the fixed point.
    adjoint: Option<FixedPoint>,
    field: &'a mut F,
}

impl<S: State, F: VectorField<S>> FixedPointMap<S> for Correction<'_, S, F> {
    fn at(&mut self, z: S, _: S) -> S {
        self.left -= 1;
        match self.adjoint {
            Some(adjoint) if self.left == 0 => {
                self.field.record(true);
                self.field.solved(self.y.clone(), z, self.h, adjoint)
            }
            _ => self.y.clone().axpy(self.h, self.field.slope(z)),
        }
    }

    fn skip(&mut self, z: S) {
        self.field.skip(z);
    }

    fn taken(&mut self, parts: &[bool]) {
        self.field.taken(parts);
    }

    fn record(&mut self, on: bool) {
        self.field.record(on);
    }
}
