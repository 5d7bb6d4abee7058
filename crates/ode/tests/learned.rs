//! The learned solvers contain the classical ones: with coefficients pinned they reproduce them.

use burn::tensor::{Device, Tensor, Tolerance};
use iiet_ode::{
    ExplicitEuler, FixedEma, FixedMultistep, HistoryStart, ImplicitEuler, IterationSchedule,
    IterativeImplicitEuler, Layer, LearnedHistory, Multistep, PredictorCorrector, RungeKutta,
    Solver, Tableau, Trajectory, VectorField,
};

const STEPS: usize = 6;
const H: f64 = 0.2;

fn logistic(y: f64) -> f64 {
    y * (1.0 - y)
}

fn path<F: VectorField<f64>>(solver: &impl Solver<f64>, mut field: F) -> Vec<f64> {
    let mut at = solver.start(0.1);
    (0..STEPS)
        .map(|_| {
            at = solver.step(&mut field, at.clone(), H);
            at.y
        })
        .collect()
}

fn assert_same(learned: &[f64], classical: &[f64]) {
    for (n, (a, b)) in learned.iter().zip(classical).enumerate() {
        assert!((a - b).abs() < 1e-14, "step {}: {a} against {b}", n + 1);
    }
}

/// Rows n = 0..=STEPS of a lower-triangular matrix.
fn rows(entry: impl Fn(usize, usize) -> f64) -> Vec<Vec<f64>> {
    (0..=STEPS)
        .map(|n| (0..=n).map(|k| entry(n, k)).collect())
        .collect()
}

fn one_if(condition: bool) -> f64 {
    f64::from(u8::from(condition))
}

fn iiet(r: usize, w: Vec<Vec<f64>>, wc: Vec<Vec<f64>>) -> IterativeImplicitEuler<FixedMultistep> {
    IterativeImplicitEuler::new(FixedMultistep { w, wc }, IterationSchedule::Uniform(r))
}

#[test]
fn iiet_contains_explicit_euler() {
    // Each layer returns its own state: y_n = s_n = G(y_{n-1}).
    let own = rows(|n, k| one_if(k == n));
    let expected = path(&ExplicitEuler {}, logistic);
    assert_same(
        &path(&iiet(0, own.clone(), own.clone()), logistic),
        &expected,
    );
    // Corrections evaluated at the previous state change nothing.
    let previous = rows(|n, k| one_if(k + 1 == n));
    assert_same(&path(&iiet(3, previous, own), logistic), &expected);
}

#[test]
fn iiet_with_one_correction_contains_heun() {
    // s_n = G(G(y_{n-1})) and y_n = (y_{n-1} + s_n) / 2 = y_{n-1} + h/2 (F(y_{n-1}) + F(G(y_{n-1}))),
    // with y_{n-1} itself written as a sum of s_0, .., s_{n-1}.
    let own = rows(|n, k| one_if(k == n));
    let halving = rows(|n, k| match (n, k) {
        (_, 0) => 0.5f64.powi(n as i32),
        _ => 0.5f64.powi((n - k + 1) as i32),
    });
    let heun = RungeKutta {
        tableau: Tableau::HEUN,
    };
    assert_same(
        &path(&iiet(1, own, halving), logistic),
        &path(&heun, logistic),
    );
}

/// A field whose Euler map is its increment, `G(y) = h F(y)`: it takes the block's residual out
/// of PCformer's stages, which then are slopes.
struct Increment;

impl VectorField<f64> for Increment {
    fn slope(&mut self, y: f64) -> f64 {
        logistic(y)
    }

    fn euler(&mut self, y: f64, h: f64) -> f64 {
        h * logistic(y)
    }
}

fn pcformer(
    order: usize,
    alpha: f64,
    wc: Vec<Vec<f64>>,
) -> PredictorCorrector<FixedEma, FixedMultistep> {
    // The correction is evaluated at the prediction.
    let w = rows(|n, k| one_if(k == n));
    PredictorCorrector {
        stages: FixedEma { order, alpha },
        history: FixedMultistep { w, wc },
    }
}

#[test]
fn pcformer_contains_implicit_euler_and_explicit_euler() {
    // s_n = h F(prediction_n) and y_n = y_0 + sum_k s_k. With alpha = 1 the prediction is
    // y + h F(y + h F(y)), so the step is implicit Euler with two corrections;
    let sum = rows(|_, _| 1.0);
    let implicit = ImplicitEuler::new(IterationSchedule::Uniform(2));
    assert_same(
        &path(&pcformer(2, 1.0, sum.clone()), Increment),
        &path(&implicit, logistic),
    );
    // with alpha = 0 it is y itself, so the step is explicit Euler.
    for order in [2, 4] {
        let explicit = path(&ExplicitEuler {}, logistic);
        assert_same(
            &path(&pcformer(order, 0.0, sum.clone()), Increment),
            &explicit,
        );
    }
}

#[test]
fn pcformer_contains_adams_moulton() {
    // y_n = y_{n-1} + h/2 (f_n + f_{n-1}), f_k the slope at the prediction of step k, after one
    // step of y_1 = y_0 + h f_1.
    let wc = rows(|n, k| match (n, k) {
        (_, 0) | (1, 1) => 1.0,
        (_, 1) => 1.5,
        _ if k == n => 0.5,
        _ => 1.0,
    });
    let mut expected = Vec::new();
    let (mut y, mut before) = (0.1, None);
    for _ in 0..STEPS {
        let f = logistic(y + H * logistic(y + H * logistic(y)));
        y += match before {
            None => H * f,
            Some(g) => H / 2.0 * (f + g),
        };
        before = Some(f);
        expected.push(y);
    }
    assert_same(&path(&pcformer(2, 1.0, wc), Increment), &expected);
}

#[test]
fn order_4_stages_follow_the_classical_nodes() {
    // alpha = 1 keeps the last stage alone: y + k_3 with half steps to the middle stages.
    let y = 0.3;
    let k0 = H * logistic(y);
    let k1 = H * logistic(y + k0 / 2.0);
    let k2 = H * logistic(y + k1 / 2.0);
    let k3 = H * logistic(y + k2);
    use iiet_ode::EmaStages;
    let guess = FixedEma {
        order: 4,
        alpha: 1.0,
    }
    .predict(&mut Increment, y, H);
    assert!((guess - (y + k3)).abs() < 1e-15);
}

#[test]
fn learned_history_starts_at_row_means_and_reads_the_lower_triangle() {
    let device = Device::default();
    let history = LearnedHistory::init(2, 3, &device);
    let states: Vec<Tensor<2>> = [[1.0, 2.0, 3.0], [4.0, 5.0, 9.0], [7.0, 8.0, 0.0]]
        .iter()
        .map(|row| Tensor::from_data([*row], &device))
        .collect();
    let mean = history.output(Layer::at(1), &states);
    let expected = Tensor::<2>::from_data([[4.0, 5.0, 4.0]], &device);
    mean.into_data()
        .assert_approx_eq::<f32>(&expected.into_data(), Tolerance::default());
    // The past of layer 2 is a third of s_0 + s_1, its present a third of s_2.
    let both = history.with_present(
        Layer::at(1),
        history.past(Layer::at(1), &states[..2]),
        states[2].clone(),
    );
    let expected = Tensor::<2>::from_data([[4.0, 5.0, 4.0]], &device);
    both.into_data()
        .assert_approx_eq::<f32>(&expected.into_data(), Tolerance::default());
}

#[test]
fn learned_and_fixed_coefficients_agree_on_tensors() {
    let device = Device::default();
    let (layers, h) = (3, 1.0);
    let y0 = Tensor::<2>::from_data([[0.1, -0.4, 0.9, 0.3]], &device);
    let mut field = |y: Tensor<2>| y.clone() * (y.neg() + 1.0);
    let means = |n: usize| vec![1.0 / (n + 1) as f64; n + 1];
    let fixed = FixedMultistep {
        w: (0..=layers).map(means).collect(),
        wc: (0..=layers).map(means).collect(),
    };
    let learned = LearnedHistory::init(layers, 4, &device);

    // The same equations with the learned module's norms spelled out.
    let (mut states, mut y) = (vec![y0.clone()], y0.clone());
    for n in Layer::all(layers) {
        let mut s = learned.normalise_guess(n, VectorField::euler(&mut field, y.clone(), h));
        for _ in 0..2 {
            let z = fixed.with_present(n, fixed.past(n, &states), s);
            s = learned.normalise_correction(n, VectorField::euler(&mut field, z, h));
        }
        states.push(s);
        y = fixed.output(n, &states);
    }

    let solver = IterativeImplicitEuler::new(learned, IterationSchedule::Uniform(2));
    let mut at = solver.start(y0);
    for _ in 0..layers {
        at = solver.step(&mut field, at, h);
    }
    let tolerance = Tolerance::<f32>::absolute(1e-5);
    at.y.into_data().assert_approx_eq(&y.into_data(), tolerance);
    assert_eq!(at.memory.len(), layers + 1);
}

#[test]
fn a_watched_step_shows_what_each_shorter_one_gives() {
    let mean = rows(|n, _| 1.0 / (n + 1) as f64);
    let twice = |watched: Vec<f64>, last: f64, shorter: &dyn Fn(usize) -> f64| {
        assert_eq!(watched.len(), 4);
        for (r, y) in watched.iter().enumerate() {
            assert_eq!(*y, shorter(r), "after {r} corrections");
        }
        assert_eq!(watched[3], last);
    };
    // The second step, so that there is a history to leave as it was.
    let solver = |r| iiet(r, mean.clone(), mean.clone());
    let at = solver(3).step(&mut logistic, solver(3).start(0.1), H);
    let mut watched = Vec::new();
    let next = solver(3).step_watched(&mut logistic, at.clone(), H, &mut |y| watched.push(y));
    assert_eq!(next, solver(3).step(&mut logistic, at.clone(), H));
    twice(watched, next.y, &|r| {
        solver(r).step(&mut logistic, at.clone(), H).y
    });

    let solver = |r| ImplicitEuler::new(IterationSchedule::Uniform(r));
    let at = solver(3).start(0.1);
    let mut watched = Vec::new();
    let next = solver(3).step_watched(&mut logistic, at.clone(), H, &mut |y| watched.push(y));
    twice(watched, next.y, &|r| {
        solver(r).step(&mut logistic, at.clone(), H).y
    });
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.try_into_vec_as::<f32>().unwrap()
}

/// `y_1 .. y_3` of three layers of `y (1 - y)` from `y_0`.
fn outputs(history: &LearnedHistory, r: usize, y0: [f32; 4]) -> Vec<Vec<f32>> {
    let device = Device::default();
    let mut field = |y: Tensor<2>| y.clone() * (y.neg() + 1.0);
    let solver = IterativeImplicitEuler::new(history.clone(), IterationSchedule::Uniform(r));
    let mut at: Trajectory<Tensor<2>, _> = solver.start(Tensor::from_data([y0], &device));
    let mut outputs = Vec::new();
    for _ in 0..3 {
        at = solver.step(&mut field, at, 1.0);
        outputs.push(values(at.y.clone()));
    }
    outputs
}

const Y0: [f32; 4] = [0.1, -0.4, 0.9, 0.3];

/// A LayerNorm with neutral scale and shift.
fn layer_norm(x: &[f32]) -> Vec<f32> {
    let mean = x.iter().sum::<f32>() / x.len() as f32;
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / x.len() as f32;
    let norm = (variance + 1e-5).sqrt();
    x.iter().map(|x| (x - mean) / norm).collect()
}

fn assert_near(found: &[f32], expected: &[f32]) {
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < 1e-5, "{found:?}, not {expected:?}");
    }
}

#[test]
fn the_textbook_start_repeats_the_block_at_its_iterate_and_returns_the_last_state() {
    let device = Device::default();
    let history = LearnedHistory::init(3, 4, &device).starting(HistoryStart::Textbook, &device);
    let block = |y: &[f32]| -> Vec<f32> {
        let after: Vec<f32> = y.iter().map(|y| y + y * (1.0 - y)).collect();
        layer_norm(&after)
    };
    let mut y = Y0.to_vec();
    for found in outputs(&history, 2, Y0) {
        for _ in 0..3 {
            y = block(&y);
        }
        assert_near(&found, &y);
    }
}

#[test]
fn a_normalised_first_state_enters_the_history_alone() {
    let device = Device::default();
    let plain = LearnedHistory::init(3, 4, &device);
    let normalised = plain.clone().with_first_norm(4, &device);
    // y_1 = (s_0 + s_1) / 2 with s_1 = LN(G(y_0)) in both: the guess is evaluated at y_0 itself.
    let (before, after) = (outputs(&plain, 0, Y0), outputs(&normalised, 0, Y0));
    let moved: Vec<f32> = layer_norm(&Y0)
        .iter()
        .zip(Y0)
        .zip(&before[0])
        .map(|((s_0, y_0), y_1)| y_1 + (s_0 - y_0) / 2.0)
        .collect();
    assert_near(&after[0], &moved);
    assert_ne!(before[1], after[1]);
}

#[test]
fn a_closed_gate_is_no_correction_and_an_open_one_the_whole() {
    let device = Device::default();
    let history = LearnedHistory::init(3, 4, &device);
    let gated = |g| history.clone().with_gate(g, &device);
    // To the last bit: what a training computes does not jump where corrections are switched on.
    assert_eq!(outputs(&gated(0.0), 3, Y0), outputs(&history, 0, Y0));
    for (found, expected) in outputs(&gated(1.0), 3, Y0)
        .iter()
        .zip(outputs(&history, 3, Y0))
    {
        assert_near(found, &expected);
    }
    // One correction of the first layer is linear in the gate: y_1 = (s_0 + s_1) / 2.
    let y_1 = |g| outputs(&gated(g), 1, Y0)[0].clone();
    let quarter: Vec<f32> = y_1(0.0)
        .iter()
        .zip(y_1(1.0))
        .map(|(closed, open)| 0.75 * closed + 0.25 * open)
        .collect();
    assert_near(&y_1(0.25), &quarter);
}

#[test]
fn a_closed_gate_has_a_gradient() {
    let device = Device::default().autodiff();
    let history = LearnedHistory::init(3, 4, &device).with_gate(0.0, &device);
    let solver = IterativeImplicitEuler::new(history, IterationSchedule::PerLayer(vec![1, 0, 2]));
    let mut field = |y: Tensor<2>| y.clone() * (y.neg() + 1.0);
    let mut at = solver.start(Tensor::<2>::from_data([Y0], &device));
    for _ in 0..3 {
        at = solver.step(&mut field, at, 1.0);
    }
    let gradients = at.y.powi_scalar(3).sum().backward();
    let gate = solver.history.gate.unwrap().val();
    let of_gate = values(gate.grad(&gradients).unwrap());
    // The second layer takes no correction.
    assert!(of_gate[0] != 0.0 && of_gate[2] != 0.0, "{of_gate:?}");
    assert_eq!(of_gate[1], 0.0);
}
