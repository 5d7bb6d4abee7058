//! `train.stages`: solvers to train with in turn.

use iiet_ode::{Options, SolverConfig};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::TrainError;

/// One of the stages of two-stage training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// The share of the steps.
    pub share: f64,
    /// The solver of this stage: a name, or a table of options, with a name unless the solver is
    /// the model's. What is not given is the model's if the solver is, and else the default.
    pub solver: Value,
}

impl Stage {
    /// The solver of this stage in the training of a model with that solver.
    ///
    /// # Errors
    ///
    /// [`TrainError::Value`] if there is no such solver, or it has no such option.
    pub fn solver(&self, of_model: &SolverConfig) -> Result<SolverConfig, TrainError> {
        override_solver(of_model, &self.solver).map_err(|allowed| TrainError::Value {
            key: "train.stages",
            found: format!("a list with the solver {}", self.solver),
            allowed,
        })
    }
}

/// The solver that a name or a table of options describes, beside the one of a model: options that
/// are not given are the model's if the solver is, and else the defaults.
///
/// # Errors
///
/// What is wrong with the description, and what is allowed.
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

/// The table that a solver's name alone stands for.
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
        };
        let of_model = read(of_model)["solver"].clone().try_into().unwrap();
        stage.solver(&of_model).map_err(|error| error.to_string())
    }

    #[test]
    fn a_stage_inherits_the_options_of_the_same_solver_alone() {
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
