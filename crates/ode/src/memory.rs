//! The state that a solver carries from step to step.

/// The memory of a solver: some number of states, none for a one-step method.
///
/// A network replaces these states to differentiate layer by layer, so a memory must expose them.
/// The order of [`map`](Self::map) depends only on their number, and a step appends new states or
/// replaces the last.
pub trait Memory<S>: Clone {
    /// The same memory with every state replaced.
    fn map(self, f: &mut dyn FnMut(S) -> S) -> Self;

    /// The states, in the order of [`map`](Self::map).
    fn states(&self) -> Vec<S>
    where
        S: Clone,
    {
        let mut states = Vec::new();
        let _ = self.clone().map(&mut |state: S| {
            states.push(state.clone());
            state
        });
        states
    }
}

/// One-step methods have no memory.
impl<S> Memory<S> for () {
    fn map(self, _: &mut dyn FnMut(S) -> S) -> Self {}
}

/// A state that exists from the second step on.
impl<S: Clone> Memory<S> for Option<S> {
    fn map(self, f: &mut dyn FnMut(S) -> S) -> Self {
        Option::map(self, f)
    }
}

/// The states of all steps so far.
impl<S: Clone> Memory<S> for Vec<S> {
    fn map(self, f: &mut dyn FnMut(S) -> S) -> Self {
        self.into_iter().map(f).collect()
    }
}
