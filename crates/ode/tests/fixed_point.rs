//! Stopping, acceleration and truncation of fixed-point iterations, on problems whose solutions are known.

use iiet_ode::{
    FixedPoint, FixedPointMap, ImplicitEuler, ImplicitEulerOptions, IterationSchedule, Options,
    Solver, State, VectorField,
};

const N: usize = 4;
type Vector = [f64; N];

/// A matrix that is neither symmetric nor normal.
const A: [Vector; N] = [
    [-1.0, 0.8, 0.0, 0.3],
    [-0.5, -2.0, 1.1, 0.0],
    [0.2, 0.0, -3.0, 0.7],
    [0.0, 0.4, -0.6, 1.5],
];
const Y: Vector = [1.0, -0.5, 2.0, 0.25];

fn times(a: &[Vector; N], x: Vector) -> Vector {
    a.map(|row| row.iter().zip(x).map(|(a, x)| a * x).sum())
}

fn dot(a: &Vector, b: &Vector) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn norm(x: Vector) -> f64 {
    dot(&x, &x).sqrt()
}

fn minus(a: Vector, b: Vector) -> Vector {
    a.axpy(-1.0, b)
}

fn solver(iterations: usize, anderson: usize) -> ImplicitEuler {
    ImplicitEuler {
        options: ImplicitEulerOptions {
            iterations: IterationSchedule::Uniform(iterations),
            anderson,
            ..Default::default()
        },
    }
}

fn step(solver: &ImplicitEuler, h: f64) -> Vector {
    let mut field = |y: Vector| times(&A, y);
    solver.step(&mut field, solver.start(Y), h).y
}

/// `|y + h A z - z|`.
fn residual(z: Vector, h: f64) -> f64 {
    norm(minus(Y.axpy(h, times(&A, z)), z))
}

#[test]
fn acceleration_solves_a_linear_problem_in_as_many_steps_as_it_has_dimensions() {
    // The iteration itself contracts at h = 0.1 and diverges at h = 1.
    for h in [0.1, 1.0] {
        // The guess is the first evaluation; four differences need five, and what they give is
        // evaluated once more.
        let exact = residual(step(&solver(N + 1, N), h), h);
        assert!(exact < 1e-10, "h {h}: {exact}");
        let short = residual(step(&solver(N - 1, N), h), h);
        assert!(short > 1e-6, "h {h}: {short}");
    }
    assert!(residual(step(&solver(30, 0), 1.0), 1.0) > 1e3);
    // A window of two solves nothing at once, and still gains where the iteration contracts.
    let [plain, window] = [0, 2].map(|m| residual(step(&solver(6, m), 0.1), 0.1));
    assert!(window > 1e-12 && window < 0.05 * plain, "{window} {plain}");
}

/// The least residual over `y + span(b, Mb, .., M^(k-1) b)` of `M z = b` started at y, by
/// Gram-Schmidt on the images of the Krylov space, and the z that has it.
fn gmres(m: impl Fn(Vector) -> Vector, b: Vector, start: Vector, k: usize) -> Vector {
    let mut r = minus(b, m(start));
    let mut z = start;
    let (mut power, mut basis): (Vector, Vec<(Vector, Vector)>) = (r, Vec::new());
    for _ in 0..k {
        let (mut v, mut image) = (power, m(power));
        power = image;
        for (u, of_u) in &basis {
            let along = dot(of_u, &image);
            v = v.axpy(-along, *u);
            image = image.axpy(-along, *of_u);
        }
        let length = norm(image);
        let (v, image) = (v.scale(1.0 / length), image.scale(1.0 / length));
        let along = dot(&image, &r);
        z = z.axpy(along, v);
        r = r.axpy(-along, image);
        basis.push((v, image));
    }
    z
}

#[test]
fn accelerated_iterates_are_those_of_gmres() {
    // s_{k+1} = g(z_k), z_k of GMRES for (I - hA) z = y from the same start (Walker and Ni, theorem 2.2).
    let h = 0.7;
    let m = |z: Vector| minus(z, times(&A, z).scale(h));
    for k in 1..N {
        let z = gmres(m, Y, Y, k);
        let expected = Y.axpy(h, times(&A, z));
        // k differences are there after k evaluations beside the guess; the next one is not mixed.
        let next = Y.axpy(h, times(&A, expected));
        let found = step(&solver(k + 1, N), h);
        assert!(norm(minus(found, next)) < 1e-10, "{k}: {found:?}, {next:?}");
    }
}

/// Counts evaluations of `-4 y`, and those that were skipped.
#[derive(Default)]
struct Counting {
    evaluations: usize,
    skipped: usize,
    taken: usize,
}

impl VectorField<f64> for Counting {
    fn slope(&mut self, y: f64) -> f64 {
        self.evaluations += 1;
        -4.0 * y
    }

    fn skip(&mut self, _: f64) {
        self.skipped += 1;
    }

    fn taken(&mut self, parts: &[bool]) {
        assert_eq!(parts, [true]);
        self.taken += 1;
    }
}

#[test]
fn corrections_stop_at_the_tolerance() {
    let (h, tolerance) = (0.1, 1e-3);
    // z^(i) = 1 - 0.4 z^(i-1) from 0.6.
    let (mut z, mut corrections) = (0.6f64, 0);
    loop {
        let next = 1.0 - 0.4 * z;
        corrections += 1;
        let done = (next - z).abs() <= tolerance * z.abs();
        z = next;
        if done {
            break;
        }
    }
    let solver = ImplicitEuler {
        options: ImplicitEulerOptions {
            iterations: IterationSchedule::Uniform(20),
            tolerance: Some(tolerance),
            ..Default::default()
        },
    };
    let mut field = Counting::default();
    let next = solver.step(&mut field, solver.start(1.0), h);
    assert!((next.y - z).abs() < 1e-15, "{} {z}", next.y);
    assert_eq!(field.evaluations, 1 + corrections);
    assert_eq!(
        (field.taken, field.skipped),
        (corrections, 20 - corrections)
    );
    assert!((3..15).contains(&corrections), "{corrections}");
}

/// `s -> s / 2 + 1`, that records when it is recorded.
struct Halving {
    recorded: Vec<bool>,
    on: bool,
}

impl FixedPointMap<f64> for Halving {
    fn at(&mut self, z: f64, _: f64) -> f64 {
        self.recorded.push(self.on);
        0.5 * z + 1.0
    }

    fn record(&mut self, on: bool) {
        self.on = on;
    }
}

#[test]
fn the_last_steps_are_recorded_and_all_are_watched() {
    for (backprop, recorded) in [
        (Some(2), vec![false, false, true, true]),
        (Some(4), vec![false; 4]),
        (None, vec![false; 4]),
    ] {
        let iteration = FixedPoint {
            iterations: 4,
            backprop,
            ..FixedPoint::default()
        };
        // A caller turns recording off before the start where that is left out.
        let mut map = Halving {
            recorded: Vec::new(),
            on: false,
        };
        let mut watched = Vec::new();
        let last = iteration.iterate(&mut map, 0.0, None, &mut |s| watched.push(*s));
        assert_eq!(map.recorded, recorded, "{backprop:?}");
        assert_eq!((watched, last), (vec![0.0, 1.0, 1.5, 1.75], 1.875));
        assert_eq!(iteration.truncates(), backprop == Some(2));
    }
}

#[test]
fn options_that_cannot_be_differentiated_are_refused_in_training() {
    let options = |text: &str| -> ImplicitEulerOptions { toml::from_str(text).unwrap() };
    for (text, expected) in [
        (
            "anderson = 2",
            "anderson is 2; allowed: in training with gradient",
        ),
        (
            "anderson = 2\nbackprop = 2",
            "anderson is 2; allowed: in training",
        ),
        (
            "tolerance = 0.1\ngradient = 'implicit'",
            "tolerance is 0.1; allowed: in training where all corrections are recorded",
        ),
    ] {
        let options = options(text);
        options.validate(2).unwrap();
        let error = options.check_training().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    for text in [
        "anderson = 2\nbackprop = 1",
        "anderson = 2\ngradient = 'implicit'",
        "tolerance = 0.1",
        "",
    ] {
        options(text).check_training().unwrap();
    }
    for (text, expected) in [
        (
            "tolerance = 0",
            "tolerance is 0.0; allowed: finite and above 0",
        ),
        ("backprop = 0", "backprop is 0; allowed: 1 and above"),
        ("anderson = 17", "anderson is 17; allowed: 0 to 16"),
        (
            "backprop = 1\ngradient = 'implicit'",
            "backprop is 1; allowed: none where gradient is implicit",
        ),
    ] {
        let error = options(text).validate(2).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
