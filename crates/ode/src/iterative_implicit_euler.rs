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
use crate::options::{
    check_anderson, check_backprop, check_gate, check_gradients, check_tolerance, is_default,
};
use crate::{
    FixedPoint, HistoryStart, IterationSchedule, Layer, Multistep, OdeError, Options, Solver,
    State, Trajectory, VectorField,
};
#[cfg(feature = "burn")]
use crate::{LearnedHistory as Coefficients, NetworkSolver, Parameter, Parameters};

/// The options of `iterative_implicit_euler`. Only `iterations` is in every configuration; the others
/// are written where they differ from their defaults, which are the published method.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IterativeImplicitEulerOptions {
    /// The number of corrections in each layer.
    pub iterations: IterationSchedule,
    /// The first values of `w` and `wc`: `"mean"` or `"textbook"`.
    #[serde(skip_serializing_if = "is_default")]
    pub history: HistoryStart,
    /// Whether `s_0` is `LN_0(y_0)` and not `y_0`, whose scale is that of embeddings and not of
    /// the other states.
    #[serde(skip_serializing_if = "is_default")]
    pub normalise_first: bool,
    /// The first value of the learned gates `g_n` on the corrections, 0 to 1; no gates if absent.
    #[serde(skip_serializing_if = "is_default")]
    pub gate: Option<f64>,
    /// The change of a token's state, relative to its size, at which its corrections stop; all are
    /// taken if absent.
    #[serde(skip_serializing_if = "is_default")]
    pub tolerance: Option<f64>,
    /// How many of the last corrections gradients flow through; all, and the guess, if absent.
    #[serde(skip_serializing_if = "is_default")]
    pub backprop: Option<usize>,
    /// The depth of Anderson acceleration; 0 for none.
    #[serde(skip_serializing_if = "is_default")]
    pub anderson: usize,
}

impl Options for IterativeImplicitEulerOptions {
    const NAMES: &'static [&'static str] = &["iterative_implicit_euler"];

    fn omitted(&self) -> &'static [&'static str] {
        &[
            "history",
            "normalise_first",
            "gate",
            "tolerance",
            "backprop",
            "anderson",
        ]
    }

    fn validate(&self, depth: usize) -> Result<(), OdeError> {
        check_gate(self.gate)?;
        check_tolerance(self.tolerance)?;
        check_backprop(self.backprop)?;
        check_anderson(self.anderson)?;
        self.iterations.check(depth)
    }

    fn check_training(&self) -> Result<(), OdeError> {
        let one_step = self.backprop == Some(1);
        let truncated = self.backprop.is_some();
        let remedy = "with backprop = 1";
        check_gradients(self.anderson, self.tolerance, one_step, truncated, remedy)
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
    /// `w`, `wc`, the norms and the gates.
    pub history: H,
    /// The schedule, and what the history was built from.
    #[cfg_attr(feature = "burn", module(skip))]
    pub options: IterativeImplicitEulerOptions,
}

impl<H> IterativeImplicitEuler<H> {
    /// The published method with these coefficients.
    pub fn new(history: H, iterations: IterationSchedule) -> Self {
        let options = IterativeImplicitEulerOptions {
            iterations,
            ..Default::default()
        };
        Self { history, options }
    }

    /// How a layer's corrections are taken.
    fn corrections(&self, layer: Layer) -> FixedPoint {
        FixedPoint {
            iterations: self.options.iterations.at(layer),
            tolerance: self.options.tolerance,
            anderson: self.options.anderson,
            backprop: self.options.backprop,
        }
    }

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
        let corrections = self.corrections(at.layer);
        field.record(!corrections.truncates());
        let guess = field.euler(at.y.clone(), h);
        self.history
            .correct(field, at, guess, corrections, h, watch)
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
        1 + self.options.iterations.at(layer)
    }

    fn recorded_evaluations(&self, layer: Layer) -> usize {
        self.corrections(layer).recorded_evaluations()
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
        let mut history =
            Coefficients::init(depth, d_model, device).starting(options.history, device);
        if options.normalise_first {
            history = history.with_first_norm(d_model, device);
        }
        if let Some(g) = options.gate {
            history = history.with_gate(g, device);
        }
        let options = options.clone();
        Self { history, options }
    }

    fn options(&self) -> IterativeImplicitEulerOptions {
        self.options.clone()
    }

    fn adopt(&mut self, options: &IterativeImplicitEulerOptions) {
        self.options = IterativeImplicitEulerOptions {
            // These were built from.
            history: self.options.history,
            normalise_first: self.options.normalise_first,
            gate: self.options.gate,
            ..options.clone()
        };
    }

    fn keeping(&self, layers: &[Layer]) -> Self {
        Self {
            history: self.history.keeping(layers),
            options: IterativeImplicitEulerOptions {
                iterations: self.options.iterations.keeping(layers),
                ..self.options.clone()
            },
        }
    }
}
