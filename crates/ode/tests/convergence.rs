//! The classical solvers have the order they claim, on linear and nonlinear equations.

use iiet_ode::{
    AdamsBashforth, ExplicitEuler, FirstStep, ImplicitEuler, IterationSchedule, Layer, RungeKutta,
    Solver, State, Tableau,
};

/// Integrates from 0 to `end` in `steps` steps.
fn integrate<S: State>(
    solver: &impl Solver<S>,
    mut field: impl FnMut(S) -> S,
    y0: S,
    end: f64,
    steps: usize,
) -> S {
    let h = end / steps as f64;
    let mut at = solver.start(y0);
    for _ in 0..steps {
        at = solver.step(&mut field, at, h);
    }
    assert_eq!(at.layer, Layer::at(steps));
    at.y
}

/// The slope of log error against log h, by least squares over h = end/16 .. end/256.
fn measured_order(error: impl Fn(usize) -> f64) -> f64 {
    let points: Vec<(f64, f64)> = [16usize, 32, 64, 128, 256]
        .iter()
        .map(|&steps| (-(steps as f64).ln(), error(steps).ln()))
        .collect();
    let n = points.len() as f64;
    let (mean_x, mean_y) = points
        .iter()
        .fold((0.0, 0.0), |(x, y), p| (x + p.0 / n, y + p.1 / n));
    let covariance: f64 = points.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum();
    let variance: f64 = points.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
    covariance / variance
}

/// A damped rotation: y' = Ay with A = [[-1/2, -2], [2, -1/2]].
fn rotation(y: [f64; 2]) -> [f64; 2] {
    [-0.5 * y[0] - 2.0 * y[1], 2.0 * y[0] - 0.5 * y[1]]
}

/// y(t) = e^(-t/2) (cos 2t, sin 2t) from (1, 0).
fn rotation_exact(t: f64) -> [f64; 2] {
    let radius = (-0.5 * t).exp();
    [radius * (2.0 * t).cos(), radius * (2.0 * t).sin()]
}

fn check_order(solver: &(impl Solver<f64> + Solver<[f64; 2]>)) {
    let stated = Solver::<f64>::order(solver).expect("a classical solver") as f64;
    let linear = measured_order(|steps| {
        let y = integrate(solver, rotation, [1.0, 0.0], 1.0, steps);
        let exact = rotation_exact(1.0);
        (y[0] - exact[0]).hypot(y[1] - exact[1])
    });
    assert!(
        (linear - stated).abs() < 0.2,
        "y' = Ay: {linear}, stated {stated}"
    );

    // The logistic equation y' = y (1 - y), y(0) = 1/10: y = 1 / (1 + 9 e^-t).
    let logistic = measured_order(|steps| {
        let y = integrate(solver, |y: f64| y * (1.0 - y), 0.1, 2.0, steps);
        (y - 1.0 / (1.0 + 9.0 * (-2.0f64).exp())).abs()
    });
    assert!(
        (logistic - stated).abs() < 0.2,
        "logistic: {logistic}, stated {stated}"
    );
}

/// Enough corrections that the fixed point is reached to rounding at every h used here.
fn converged_implicit_euler() -> ImplicitEuler {
    ImplicitEuler::new(IterationSchedule::Uniform(60))
}

#[test]
fn explicit_euler_has_order_1() {
    check_order(&ExplicitEuler {});
}

#[test]
fn implicit_euler_has_order_1() {
    check_order(&converged_implicit_euler());
    for r in [0, 1, 2] {
        check_order(&ImplicitEuler::new(IterationSchedule::Uniform(r)));
    }
}

#[test]
fn runge_kutta_has_orders_2_and_4() {
    check_order(&RungeKutta {
        tableau: Tableau::HEUN,
    });
    check_order(&RungeKutta {
        tableau: Tableau::CLASSICAL,
    });
}

#[test]
fn adams_bashforth_has_order_2_whatever_the_first_step() {
    for first_step in [FirstStep::Euler, FirstStep::Heun] {
        check_order(&AdamsBashforth { first_step });
    }
}

#[test]
fn tableaus_satisfy_the_order_conditions() {
    for tableau in [Tableau::HEUN, Tableau::CLASSICAL] {
        let c: Vec<f64> = tableau.a.iter().map(|row| row.iter().sum()).collect();
        let moment = |p: i32| -> f64 { tableau.b.iter().zip(&c).map(|(b, c)| b * c.powi(p)).sum() };
        // sum_i b_i c_i^(p-1) = 1/p for p up to the order.
        for p in 1..=tableau.order as i32 {
            assert!(
                (moment(p - 1) - 1.0 / p as f64).abs() < 1e-15,
                "order condition {p}"
            );
        }
    }
}

#[test]
fn steps_by_hand() {
    // y' = -2y from 1, h = 1/4: F(1) = -2.
    let field = |y: f64| -2.0 * y;
    let euler = integrate(&ExplicitEuler {}, field, 1.0, 0.25, 1);
    assert_eq!(euler, 0.5);
    // Heun: (k1, k2) = (-2, -1).
    let heun = integrate(
        &RungeKutta {
            tableau: Tableau::HEUN,
        },
        field,
        1.0,
        0.25,
        1,
    );
    assert_eq!(heun, 0.625);
    // Adams-Bashforth: 1/2, F = -1, 1/2 + (3/2 (-1) - 1/2 (-2)) / 4.
    let [euler_first, heun_first] =
        [FirstStep::Euler, FirstStep::Heun].map(|first_step| AdamsBashforth { first_step });
    assert_eq!(integrate(&euler_first, field, 1.0, 0.5, 2), 0.375);
    assert_eq!(integrate(&heun_first, field, 1.0, 0.25, 1), 0.625);
    // Implicit, r = 2: 1/2, 1 - 1/4, 1 - 3/8.
    let two = ImplicitEuler::new(IterationSchedule::PerLayer(vec![2]));
    assert_eq!(integrate(&two, field, 1.0, 0.25, 1), 0.625);
}

#[test]
fn the_iteration_contracts_to_implicit_euler_at_the_rate_h_lambda() {
    for lambda in [-0.4, 0.3, -3.0] {
        let h = 0.25;
        let solution = 1.0 / (1.0 - h * lambda);
        let error = |r: usize| {
            let solver = ImplicitEuler::new(IterationSchedule::Uniform(r));
            (integrate(&solver, |y: f64| lambda * y, 1.0, h, 1) - solution).abs()
        };
        for r in 0..6 {
            let rate = error(r + 1) / error(r);
            assert!(
                (rate - (h * lambda).abs()).abs() < 1e-6,
                "lambda {lambda}, r {r}: contraction {rate}"
            );
        }
        assert!(error(200) < 1e-14);
    }
}

#[test]
fn a_stiff_step_makes_the_iteration_diverge() {
    // |h lambda| = 2: more corrections make it worse. Nothing hides that.
    let distance = |r: usize| {
        let solver = ImplicitEuler::new(IterationSchedule::Uniform(r));
        (integrate(&solver, |y: f64| -2.0 * y, 1.0, 1.0, 1) - 1.0 / 3.0).abs()
    };
    assert!(distance(4) > 7.0 * distance(1));
}

#[test]
fn implicit_euler_stays_bounded_where_explicit_euler_grows() {
    // The harmonic oscillator keeps its radius; explicit Euler multiplies it by sqrt(1 + h^2) a
    // step, implicit Euler divides by it.
    let oscillator = |y: [f64; 2]| [-y[1], y[0]];
    let (h, steps) = (0.1f64, 500);
    let radius = |y: [f64; 2]| y[0].hypot(y[1]);
    let growth = (1.0 + h * h).powf(steps as f64 / 2.0);

    let explicit = radius(integrate(
        &ExplicitEuler {},
        oscillator,
        [1.0, 0.0],
        50.0,
        steps,
    ));
    assert!(
        (explicit / growth - 1.0).abs() < 1e-9,
        "{explicit} against {growth}"
    );
    assert!(explicit > 10.0);

    let implicit = radius(integrate(
        &converged_implicit_euler(),
        oscillator,
        [1.0, 0.0],
        50.0,
        steps,
    ));
    assert!(
        (implicit * growth - 1.0).abs() < 1e-9,
        "{implicit} against 1/{growth}"
    );
}

#[test]
fn evaluations_are_counted_as_they_happen() {
    let schedule = IterationSchedule::PerLayer(vec![3, 0, 1]);
    let solver = ImplicitEuler::new(schedule);
    let mut at = solver.start(1.0);
    for layer in Layer::all(3) {
        let mut calls = 0;
        let mut field = |y: f64| {
            calls += 1;
            -y
        };
        at = solver.step(&mut field, at, 0.1);
        assert_eq!(
            calls,
            Solver::<f64>::evaluations(&solver, layer),
            "layer {layer}"
        );
    }
}
