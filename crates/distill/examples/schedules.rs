//! The corrections that are kept for decreasing budgets: `cargo run --example schedules`
//!
//! The influences are invented; `iiet influence --model DIR --out FILE` measures those of a model.

use iiet_distill::{DistillError, by_budget};

fn main() -> Result<(), DistillError> {
    let influence = vec![
        vec![0.80, 0.31, 0.12],
        vec![0.55, 0.20, 0.06],
        vec![0.43, 0.12, 0.03],
        vec![0.61, 0.25, 0.09],
    ];
    let layers = influence.len();
    println!("evaluations per layer   corrections kept in each layer");
    for budget in [4.0, 3.0, 2.5, 2.0, 1.5, 1.0] {
        let kept = by_budget(&influence, budget)?.per_layer(layers);
        println!("{budget:>21}   {kept:?}");
    }
    Ok(())
}
