//! How the error of each method shrinks with its step: `cargo run --example convergence`
//!
//! On y' = -y, y(0) = 1, up to t = 1. Twice the steps halve the error of a method of order 1, and divide
//! that of a method of order 4 by 16.

use iiet_ode::{ExplicitEuler, ImplicitEuler, IterationSchedule, RungeKutta, Solver, Tableau};

fn main() {
    let implicit = ImplicitEuler::new(IterationSchedule::Uniform(30));
    let heun = RungeKutta {
        tableau: Tableau::HEUN,
    };
    let classical = RungeKutta {
        tableau: Tableau::CLASSICAL,
    };
    println!("steps  explicit Euler  implicit Euler  Heun      Runge-Kutta 4");
    for steps in [10, 20, 40, 80, 160] {
        println!(
            "{steps:>5}  {:<14.2e}  {:<14.2e}  {:<8.2e}  {:.2e}",
            error(&ExplicitEuler {}, steps),
            error(&implicit, steps),
            error(&heun, steps),
            error(&classical, steps),
        );
    }
}

fn error(solver: &impl Solver<f64>, steps: usize) -> f64 {
    let mut at = solver.start(1.0);
    for _ in 0..steps {
        at = solver.step(&mut |y: f64| -y, at, 1.0 / steps as f64);
    }
    (at.y - (-1.0f64).exp()).abs()
}
