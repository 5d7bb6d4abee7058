//! The interface of all methods: one step.

use crate::{Layer, Memory, State, VectorField};

/// The state of an integration between two steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Trajectory<S, M = ()> {
    /// The current state, `y_{n-1}`.
    pub y: S,
    /// The layer whose step comes next, n.
    pub layer: Layer,
    /// The method's memory of earlier steps.
    pub memory: M,
}

impl<S, M> Trajectory<S, M> {
    /// The trajectory before the first step, at `y_0`.
    pub fn start(y: S, memory: M) -> Self {
        let layer = Layer::FIRST;
        Self { y, layer, memory }
    }

    /// One step further: `y_n = step(y_{n-1})`.
    pub fn advance(self, step: impl FnOnce(S) -> S) -> Self {
        Self {
            y: step(self.y),
            layer: self.layer.next(),
            memory: self.memory,
        }
    }
}

/// A method that advances `dy/dt = F(y)` by one step.
pub trait Solver<S: State> {
    /// The memory that a step leaves for later steps; `()` for a one-step method.
    type Memory: Memory<S>;

    /// The memory before the first step.
    fn memory(&self) -> Self::Memory;

    /// From `at` to the next state, through the field of layer `at.layer`, with step size `h`.
    fn step(
        &self,
        field: &mut impl VectorField<S>,
        at: Trajectory<S, Self::Memory>,
        h: f64,
    ) -> Trajectory<S, Self::Memory>;

    /// [`step`](Self::step), which shows on its way what it would give if it stopped early:
    /// `yhat^(i)`, the output after i corrections, for i = 0, .., r. The last is the result.
    ///
    /// A method with no corrections, or a fixed number, passes only its result.
    fn step_watched(
        &self,
        field: &mut impl VectorField<S>,
        at: Trajectory<S, Self::Memory>,
        h: f64,
        watch: &mut dyn FnMut(S),
    ) -> Trajectory<S, Self::Memory> {
        let next = self.step(field, at, h);
        watch(next.y.clone());
        next
    }

    /// The number of evaluations of the field in a layer's step.
    fn evaluations(&self, layer: Layer) -> usize;

    /// How many of these evaluations a backward pass has in memory at a time.
    fn recorded_evaluations(&self, layer: Layer) -> usize {
        self.evaluations(layer)
    }

    /// The classical order of convergence, or `None` if coefficients are learned.
    fn order(&self) -> Option<usize>;

    /// The start of an integration.
    fn start(&self, y: S) -> Trajectory<S, Self::Memory> {
        Trajectory::start(y, self.memory())
    }
}
