//! A whole training step of every solver: forward, backward, clipping, update.
//!
//! `cargo xtask bench step`. To compare with PyTorch: `cargo xtask bench peers`.

use std::time::Duration;

use burn::tensor::Device;
use criterion::{BenchmarkId, Criterion, Throughput};
use iiet_benches::{TrainingStep, preset};
use iiet_model::LanguageModel;
use iiet_train::RunConfig;

/// Presets with their batch sizes.
const SIZES: [(&str, usize, usize); 2] = [("tiny", 8, 128), ("small", 8, 256)];
const SOLVERS: [&str; 5] = [
    "explicit_euler",
    "runge_kutta",
    "implicit_euler",
    "predictor_corrector",
    "iterative_implicit_euler",
];

fn steps(criterion: &mut Criterion) {
    for (name, batch, seq) in SIZES {
        let mut group = criterion.benchmark_group(format!("step/{name}"));
        group.throughput(Throughput::Elements((batch * seq) as u64));
        for solver in SOLVERS {
            let set = [format!("model.solver={solver}")];
            let config = RunConfig::load(&preset(name), &set).expect("a preset");
            let model = config.model.config(config.data.vocab_size, None);
            let model = LanguageModel::init(&model, 1, &Device::default()).expect("a preset");
            let mut step = TrainingStep::new(model, &config.train, batch, seq);
            group.bench_function(BenchmarkId::from_parameter(solver), |b| {
                b.iter(|| step.take());
            });
        }
        group.finish();
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(5))
        .sample_size(10)
        .without_plots()
        .configure_from_args();
    steps(&mut criterion);
    criterion.final_summary();
}
