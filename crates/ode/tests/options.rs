//! Solvers by name: their options in TOML and JSON, the errors, and the modules built from them.

use burn::tensor::{Device, Tensor};
use iiet_ode::{AnySolver, IterationSchedule, Layer, NetworkSolver, Options, Solver, SolverConfig};
use serde::Deserialize;

#[derive(Deserialize)]
struct Section {
    solver: SolverConfig,
}

fn from_toml(text: &str) -> Result<SolverConfig, String> {
    toml::from_str::<Section>(text)
        .map(|section| section.solver)
        .map_err(|error| error.to_string())
}

#[test]
fn a_name_selects_the_defaults_and_a_table_sets_options() {
    for name in SolverConfig::NAMES {
        let config = from_toml(&format!("solver = \"{name}\"")).unwrap();
        assert_eq!(config, SolverConfig::named(name).unwrap());
        assert_eq!(config.name(), *name);
        let table = from_toml(&format!("solver = {{ name = \"{name}\" }}")).unwrap();
        assert_eq!(table, config);
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<SolverConfig>(&json).unwrap(), config);
    }
    let config = from_toml("[solver]\nname = \"implicit_euler\"\niterations = [2, 0]").unwrap();
    let schedule = IterationSchedule::PerLayer(vec![2, 0]);
    assert_eq!(config.iterations(), Some(&schedule));
}

#[test]
fn adams_bashforth_first_step_is_an_option() {
    let device = Device::default();
    for (text, evaluations) in [
        ("'adams_bashforth'", [1, 1]),
        ("{ name = 'adams_bashforth', first_step = 'heun' }", [2, 1]),
    ] {
        let config = from_toml(&format!("solver = {text}")).unwrap();
        let solver = AnySolver::init(&config, 2, 8, &device);
        let found = [0, 1].map(|at| Solver::<Tensor<3>>::evaluations(&solver, Layer::at(at)));
        assert_eq!(found, evaluations, "{text}");
    }
    let error = from_toml("solver = { name = 'adams_bashforth', first_step = 'rk4' }");
    assert!(error.unwrap_err().contains("expected `euler` or `heun`"));
}

#[test]
fn unknown_names_and_keys_are_errors_listing_the_known_ones() {
    for (text, expected) in [
        (
            "solver = \"leapfrog\"",
            "there is no solver \"leapfrog\"; allowed: explicit_euler, runge_kutta",
        ),
        (
            "solver = { name = \"leapfrog\" }",
            "unknown variant `leapfrog`",
        ),
        (
            "solver = { name = \"implicit_euler\", predictor_order = 2 }",
            "unknown field `predictor_order`, expected one of `iterations`, `gradient`",
        ),
        (
            "solver = { name = \"runge_kutta\", iterations = 2 }",
            "unknown field `iterations`, expected `predictor_order`",
        ),
        (
            "solver = { name = \"explicit_euler\", iterations = 2 }",
            "unknown field `iterations`, there are no fields",
        ),
        ("solver = { iterations = 2 }", "missing field `name`"),
        (
            "solver = { name = \"iterative_implicit_euler\", history = \"last\" }",
            "unknown variant `last`, expected `mean` or `textbook`",
        ),
        ("solver = 3", "the name of a solver, or a table"),
    ] {
        let error = from_toml(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn invalid_options_are_errors() {
    for (text, expected) in [
        (
            "{ name = \"runge_kutta\", predictor_order = 3 }",
            "predictor_order is 3; allowed: 2, 4",
        ),
        (
            "{ name = \"predictor_corrector\", predictor_order = 3 }",
            "predictor_order is 3; allowed: 2, 4",
        ),
        (
            "{ name = \"implicit_euler\", iterations = [1, 2, 3] }",
            "iterations lists 3 layers, the model has 2",
        ),
        (
            "{ name = \"iterative_implicit_euler\", iterations = [1, 2, 3] }",
            "iterations lists 3 layers, the model has 2",
        ),
        (
            "{ name = \"iterative_implicit_euler\", gate = 1.5 }",
            "gate is 1.5; allowed: 0 to 1",
        ),
    ] {
        let config = from_toml(&format!("solver = {text}")).unwrap();
        assert_eq!(config.validate(2).unwrap_err().to_string(), expected);
    }
}

#[test]
fn every_named_solver_has_its_stated_evaluations_and_options() {
    let device = Device::default();
    for name in SolverConfig::NAMES {
        let config = SolverConfig::named(name).unwrap();
        let solver = AnySolver::init(&config, 2, 8, &device);
        assert_eq!(solver.options(), config);
        let mut at = solver.start(Tensor::<2>::ones([1, 8], &device));
        for layer in Layer::all(2) {
            let mut calls = 0;
            let mut field = |y: Tensor<2>| {
                calls += 1;
                y * 0.1
            };
            at = solver.step(&mut field, at, 1.0);
            let stated = Solver::<Tensor<2>>::evaluations(&solver, layer);
            assert_eq!(calls, stated, "{name}, layer {layer}");
        }
        assert_eq!(at.layer, Layer::at(2));
    }
}

#[test]
fn options_that_came_later_are_written_only_where_they_differ() {
    let plain = SolverConfig::named("iterative_implicit_euler").unwrap();
    let written = serde_json::to_string(&plain).unwrap();
    assert_eq!(
        written,
        r#"{"name":"iterative_implicit_euler","iterations":3}"#
    );
    // All of them are listed: what is written is what omitted() names.
    for levers in [
        "{ name = 'iterative_implicit_euler', history = 'textbook', normalise_first = true, gate = 0, tolerance = 0.1, backprop = 1, anderson = 2 }",
        "{ name = 'implicit_euler', gradient = 'implicit', tolerance = 0.1, backprop = 1, anderson = 2 }",
    ] {
        let config = from_toml(&format!("solver = {levers}")).unwrap();
        let json = serde_json::to_value(&config).unwrap();
        for key in config.omitted() {
            assert!(json.get(key).is_some(), "{key}");
        }
        assert_eq!(json.as_object().unwrap().len(), 2 + config.omitted().len());
        assert_eq!(
            serde_json::from_value::<SolverConfig>(json).unwrap(),
            config
        );
    }
}

#[test]
fn a_solver_adopts_a_schedule_and_nothing_that_has_parameters() {
    let device = Device::default();
    let config = |text: &str| from_toml(&format!("solver = {text}")).unwrap();
    let gated = config("{ name = 'iterative_implicit_euler', gate = 0.5 }");
    let mut solver = AnySolver::init(&gated, 2, 8, &device);
    solver.adopt(&config(
        "{ name = 'iterative_implicit_euler', iterations = [7, 0] }",
    ));
    let expected = config("{ name = 'iterative_implicit_euler', iterations = [7, 0], gate = 0.5 }");
    assert_eq!(solver.options(), expected);
    solver.adopt(&config("'explicit_euler'"));
    assert_eq!(solver.options(), expected);
}
