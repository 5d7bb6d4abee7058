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

    /// Whether gradients of what a solver with these options computes can be had in training.
    ///
    /// # Errors
    ///
    /// As [`validate`](Self::validate).
    fn check_training(&self) -> Result<(), OdeError> {
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

/// Refuses a tolerance that is no positive number.
pub(crate) fn check_tolerance(tolerance: Option<f64>) -> Result<(), OdeError> {
    match tolerance {
        Some(tolerance) if !(tolerance > 0.0 && tolerance.is_finite()) => Err(OdeError::Option {
            key: "tolerance",
            found: format!("{tolerance:?}"),
            allowed: "finite and above 0".into(),
        }),
        _ => Ok(()),
    }
}

/// The most differences that an acceleration keeps: each is two states, and beyond ten none has been
/// found useful.
const MAX_ANDERSON: usize = 16;

/// Refuses a depth of acceleration that takes memory without bound.
pub(crate) fn check_anderson(depth: usize) -> Result<(), OdeError> {
    match depth {
        0..=MAX_ANDERSON => Ok(()),
        _ => Err(OdeError::Option {
            key: "anderson",
            found: depth.to_string(),
            allowed: format!("0 to {MAX_ANDERSON}"),
        }),
    }
}

/// Refuses a backward pass through no correction.
pub(crate) fn check_backprop(backprop: Option<usize>) -> Result<(), OdeError> {
    match backprop {
        Some(0) => Err(OdeError::Option {
            key: "backprop",
            found: "0".into(),
            allowed: "1 and above, or none for all corrections".into(),
        }),
        _ => Ok(()),
    }
}

/// Refuses to differentiate what is not differentiated rightly: the coefficients of an acceleration
/// are constants to the backward pass, and parts that have settled are not evaluated in the steps
/// that are recorded. `one_step` says whether the last step alone is recorded, `truncated` whether not
/// all are.
pub(crate) fn check_gradients(
    anderson: usize,
    tolerance: Option<f64>,
    one_step: bool,
    truncated: bool,
    remedy: &'static str,
) -> Result<(), OdeError> {
    let refuse = |key, found: String, allowed: String| {
        Err(OdeError::Option {
            key,
            found,
            allowed,
        })
    };
    if anderson > 0 && !one_step {
        let allowed = format!("in training {remedy}, because no gradient flows through the mixing");
        return refuse("anderson", anderson.to_string(), allowed);
    }
    match tolerance {
        Some(tolerance) if truncated => refuse(
            "tolerance",
            format!("{tolerance:?}"),
            "in training where all corrections are recorded; --tolerance sets it for a trained model"
                .into(),
        ),
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
