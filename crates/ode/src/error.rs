//! Options that no solver accepts.

use crate::IterationSchedule;

/// A configuration that no solver accepts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OdeError {
    /// An option with a value that the solver cannot use.
    #[error("{key} is {found}; allowed: {allowed}")]
    Option {
        /// The option's name.
        key: &'static str,
        /// Its value.
        found: String,
        /// The values there are.
        allowed: String,
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
    /// A name that no solver has.
    #[error("there is no solver {found:?}; allowed: {allowed}")]
    Name {
        /// The name asked for.
        found: String,
        /// The names there are.
        allowed: String,
    },
}
