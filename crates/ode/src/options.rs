//! What a solver can be told, named in one place.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{IterationSchedule, OdeError};

/// The options of a solver: a serde struct in the solver's file.
///
/// Its fields are the keys of `[model.solver]` in TOML and of `config.json`, the arguments of
/// `convert`, and what error messages list; nothing else names them. Every field is serialised,
/// also when it has its default, but for those that [`omitted`](Self::omitted) lists. Write
/// `#[serde(default, deny_unknown_fields)]` on the struct.
pub trait Options: Clone + Debug + Default + PartialEq + Serialize + DeserializeOwned {
    /// The names that configurations may use; the first is that of the default.
    const NAMES: &'static [&'static str];

    /// The names of the fields that are not serialised while they have their default: those that
    /// came after configurations were published without them.
    fn omitted(&self) -> &'static [&'static str] {
        &[]
    }

    /// The name of the solver that these options are for.
    fn name(&self) -> &'static str {
        Self::NAMES[0]
    }

    /// The default options of a solver by its name.
    ///
    /// # Errors
    ///
    /// [`OdeError::Name`] if no solver has the name.
    fn named(name: &str) -> Result<Self, OdeError> {
        match Self::NAMES.contains(&name) {
            true => Ok(Self::default()),
            false => Err(OdeError::Name {
                found: name.to_owned(),
                allowed: Self::NAMES.join(", "),
            }),
        }
    }

    /// Whether a network of `depth` layers can have these options.
    ///
    /// # Errors
    ///
    /// [`OdeError`] that names the option, what was found and what is allowed.
    fn validate(&self, depth: usize) -> Result<(), OdeError> {
        let _ = depth;
        Ok(())
    }

    /// How many corrections each layer takes, if that can be chosen.
    fn iterations(&self) -> Option<&IterationSchedule> {
        None
    }

    /// The same options with another schedule; unchanged if the method takes no corrections that
    /// could be chosen.
    fn with_iterations(mut self, schedule: IterationSchedule) -> Self {
        if let Some(iterations) = self.iterations_mut() {
            *iterations = schedule;
        }
        self
    }

    /// The schedule, to be changed.
    fn iterations_mut(&mut self) -> Option<&mut IterationSchedule> {
        None
    }
}

/// What a field of [`Options::omitted`] is skipped by.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Refuses a gate that is not a share.
pub(crate) fn check_gate(gate: Option<f64>) -> Result<(), OdeError> {
    match gate {
        Some(g) if !(0.0..=1.0).contains(&g) => Err(OdeError::Option {
            key: "gate",
            found: format!("{g:?}"),
            allowed: "0 to 1".into(),
        }),
        _ => Ok(()),
    }
}

/// Refuses an order that the Runge-Kutta methods here do not have.
pub(crate) fn check_order(order: usize) -> Result<(), OdeError> {
    match order {
        2 | 4 => Ok(()),
        _ => Err(OdeError::Option {
            key: "predictor_order",
            found: order.to_string(),
            allowed: "2, 4".into(),
        }),
    }
}
