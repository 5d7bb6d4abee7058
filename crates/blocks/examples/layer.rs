//! One block as a layer of three networks: `cargo run --release --example layer`

use burn::tensor::{Device, Distribution, Tensor};
use iiet_blocks::{Block, BlockField, LlamaBlock, LlamaConfig, Tokens};
use iiet_ode::{
    ExplicitEuler, ImplicitEuler, IterationSchedule, Layer, RungeKutta, Solver, Tableau,
};

const D_MODEL: usize = 64;
const SEQ: usize = 10;

fn main() {
    let device = Device::default();
    let config = LlamaConfig {
        d_ff: 176,
        n_heads: 4,
        n_kv_heads: 2,
        ..LlamaConfig::default()
    };
    let block = LlamaBlock::init(&config, D_MODEL, &device);
    let y = Tensor::<3>::random([1, SEQ, D_MODEL], Distribution::Default, &device);

    let context = LlamaBlock::context(&config, D_MODEL, Tokens::Whole { seq: SEQ }, &device);
    let run = |name: &str, solver: &dyn Fn(&mut BlockField<LlamaBlock>) -> (Tensor<3>, usize)| {
        let mut terms = Vec::new();
        let mut field = BlockField::new(&block, &context, None, &mut terms);
        let (next, evaluations) = solver(&mut field);
        let moved = (next - y.clone()).abs().mean().into_scalar::<f32>();
        println!("{name}: {evaluations} evaluations of the block, mean change {moved:.4}");
    };
    run("explicit Euler", &|field| {
        step(&ExplicitEuler {}, field, &y)
    });
    let solver = RungeKutta {
        tableau: Tableau::CLASSICAL,
    };
    run("Runge-Kutta 4", &|field| step(&solver, field, &y));
    let solver = ImplicitEuler::new(IterationSchedule::Uniform(3));
    run("implicit Euler", &|field| step(&solver, field, &y));
}

fn step(
    solver: &impl Solver<Tensor<3>>,
    field: &mut BlockField<LlamaBlock>,
    y: &Tensor<3>,
) -> (Tensor<3>, usize) {
    let at = solver.start(y.clone());
    let next = solver.step(field, at, 1.0);
    (next.y, solver.evaluations(Layer::FIRST))
}
