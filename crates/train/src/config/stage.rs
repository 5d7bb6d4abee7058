//! `train.stages`: solvers of successive stages of training.

use iiet_ode::{Options, SolverConfig};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::TrainError;

/// One stage of two-stage training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// The share of the steps.
    pub share: f64,
    /// The solver of this stage: a name, or a table of options, whose name may be omitted if the
    /// solver is the model's. Missing options default to the model's if it has the same solver, and
    /// otherwise to the solver's defaults.
    pub solver: Value,
    /// The solver of an encoder in this stage, described in the same way; the model's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<Value>,
}

impl Stage {
    /// The solver of this stage, for a model with the given solver.
    ///
    /// # Errors
    ///
    /// [`TrainError::Value`] if there is no such solver, or it has no such option.
    pub fn solver(&self, of_model: &SolverConfig) -> Result<SolverConfig, TrainError> {
        overridden(of_model, &self.solver)
    }

    /// The encoder's solver of this stage, for an encoder with the given solver.
    ///
    /// # Errors
    ///
    /// [`TrainError::Value`] if there is no such solver, or it has no such option.
    pub fn encoder(&self, of_encoder: &SolverConfig) -> Result<SolverConfig, TrainError> {
        match &self.encoder {
            Some(solver) => overridden(of_encoder, solver),
            None => Ok(of_encoder.clone()),
        }
    }
}

fn overridden(of_model: &SolverConfig, given: &Value) -> Result<SolverConfig, TrainError> {
    override_solver(of_model, given).map_err(|allowed| TrainError::Value {
        key: "train.stages",
        found: format!("a list with the solver {given}"),
        allowed,
    })
}

/// The solver described by a name or a table of options, for a model with the given solver: missing
/// options default to the model's if it has the same solver, and otherwise to the solver's
/// defaults.
///
/// # Errors
///
/// The reason why the description is invalid, and what is allowed.
pub fn override_solver(of_model: &SolverConfig, given: &Value) -> Result<SolverConfig, String> {
    let given = match given {
        Value::String(name) => named(name),
        Value::Table(table) => table.clone(),
        other => return Err(format!("expected a name or a table, found {other}")),
    };
    let name = Value::from(of_model.name());
    let mut table = match given.get("name") {
        Some(other) if *other != name => Table::new(),
        _ => Table::try_from(of_model).expect("invariant: solvers serialise as tables"),
    };
    table.extend(given);
    let solver = Value::Table(table).try_into();
    solver.map_err(|error: toml::de::Error| error.message().to_owned())
}

/// The table that is equivalent to a solver's name.
pub(super) fn named(name: &str) -> Table {
    Table::from_iter([("name".to_owned(), Value::from(name))])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(solver: &str, of_model: &str) -> Result<SolverConfig, String> {
        let read = |text: &str| toml::from_str::<Table>(&format!("solver = {text}")).unwrap();
        let stage = Stage {
            share: 1.0,
            solver: read(solver)["solver"].clone(),
            encoder: None,
        };
        let of_model = read(of_model)["solver"].clone().try_into().unwrap();
        stage.solver(&of_model).map_err(|error| error.to_string())
    }

    #[test]
    fn a_stage_inherits_options_only_from_the_same_solver() {
        let iiet = "{ name = 'iterative_implicit_euler', iterations = [2, 1] }";
        let gated = "{ name = 'iterative_implicit_euler', iterations = [2, 1], gate = 0 }";
        let solver = |text: &str| {
            let table: Table = toml::from_str(&format!("solver = {text}")).unwrap();
            table["solver"].clone().try_into::<SolverConfig>().unwrap()
        };
        for (given, expected) in [
            ("'iterative_implicit_euler'", iiet),
            (
                "{ iterations = 0 }",
                "{ name = 'iterative_implicit_euler', iterations = 0 }",
            ),
            (
                "'implicit_euler'",
                "{ name = 'implicit_euler', iterations = 3 }",
            ),
            ("'explicit_euler'", "'explicit_euler'"),
        ] {
            assert_eq!(stage(given, iiet).unwrap(), solver(expected), "{given}");
        }
        assert_eq!(
            stage("{ iterations = 0 }", gated).unwrap(),
            solver("{ name = 'iterative_implicit_euler', iterations = 0, gate = 0.0 }")
        );
        for (given, expected) in [
            ("3", "expected a name or a table, found 3"),
            ("'heun'", "unknown variant `heun`"),
            (
                "{ order = 2 }",
                "unknown field `order`, expected one of `iterations`, `history`",
            ),
        ] {
            let error = stage(given, iiet).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
