//! Errors of solver options.

use crate::IterationSchedule;

/// A configuration that no solver accepts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OdeError {
    /// An option with an invalid value.
    #[error("{key} is {found}; allowed: {allowed}")]
    Option {
        /// The option's name.
        key: &'static str,
        /// Its value.
        found: String,
        /// The allowed values.
        allowed: String,
    },
    /// A schedule with too many corrections, each of which costs an evaluation and a cache.
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
    /// An unknown solver name.
    #[error("there is no solver {found:?}; allowed: {allowed}")]
    Name {
        /// The given name.
        found: String,
        /// The known names.
        allowed: String,
    },
}
