//! Every fused operation, forward and backward, against its composition of Burn operations, on flex.
//!
//! `cargo xtask bench kernels`, or a single one: `cargo xtask bench kernels -- 55m/swiglu`.

use std::hint::black_box;
use std::time::{Duration, SystemTime};

use burn::tensor::activation::{log_softmax, silu, softmax};
use burn::tensor::{Device, Distribution, Int, Tensor};
use criterion::{BenchmarkId, Criterion};
use iiet_benches::ratios;
use iiet_kernels::{
    causal_attention, layer_norm, linear, linear_cross_entropy, rms_norm, rotate, swiglu,
    weighted_sum,
};

/// The sizes that a kernel depends on.
struct Sizes {
    name: &'static str,
    d_model: usize,
    d_ff: usize,
    n_heads: usize,
    seq: usize,
    batch: usize,
    vocab: usize,
    /// Number of states in the history.
    states: usize,
}

const MODELS: [Sizes; 2] = [
    Sizes {
        name: "tiny",
        d_model: 128,
        d_ff: 352,
        n_heads: 4,
        seq: 128,
        batch: 8,
        vocab: 4096,
        states: 5,
    },
    Sizes {
        name: "55m",
        d_model: 512,
        d_ff: 1408,
        n_heads: 4,
        seq: 256,
        batch: 4,
        vocab: 32_000,
        states: 9,
    },
];

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let x = Tensor::random(shape, Distribution::Normal(0.0, 1.0), device);
    if device.is_autodiff() {
        x.require_grad()
    } else {
        x
    }
}

/// One operation with its leaves, on a device.
type Build = fn(&Sizes, &Device, bool) -> Box<dyn Fn() -> Tensor<3>>;

fn build_swiglu(s: &Sizes, device: &Device, fused: bool) -> Box<dyn Fn() -> Tensor<3>> {
    let shape = [s.batch, s.seq, s.d_ff];
    let (g, u) = (random(shape, device), random(shape, device));
    Box::new(move || {
        if fused {
            swiglu(g.clone(), u.clone())
        } else {
            silu(g.clone()) * u.clone()
        }
    })
}

fn build_rms_norm(s: &Sizes, device: &Device, fused: bool) -> Box<dyn Fn() -> Tensor<3>> {
    let x = random([s.batch, s.seq, s.d_model], device);
    let gamma = random([s.d_model], device);
    Box::new(move || {
        if fused {
            return rms_norm(x.clone(), gamma.clone(), 1e-5);
        }
        let rms = (x.clone().square().mean_dim(2) + 1e-5).sqrt();
        x.clone() / rms * gamma.clone().unsqueeze()
    })
}

fn build_layer_norm(s: &Sizes, device: &Device, fused: bool) -> Box<dyn Fn() -> Tensor<3>> {
    let x = random([s.batch, s.seq, s.d_model], device);
    let (gamma, beta) = (random([s.d_model], device), random([s.d_model], device));
    Box::new(move || {
        if fused {
            layer_norm(x.clone(), gamma.clone(), beta.clone(), 1e-5)
        } else {
            let (gamma, beta) = (gamma.clone(), Some(beta.clone()));
            burn::tensor::module::layer_norm(x.clone(), gamma, beta, 1e-5)
        }
    })
}

fn split(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, seq, width] = x.dims();
    x.reshape([batch, seq, heads, width / heads])
        .swap_dims(1, 2)
}

fn merge(x: Tensor<4>) -> Tensor<3> {
    let [batch, heads, seq, d] = x.dims();
    x.swap_dims(1, 2).reshape([batch, seq, heads * d])
}

fn build_rotate(s: &Sizes, device: &Device, fused: bool) -> Box<dyn Fn() -> Tensor<3>> {
    let (heads, half) = (s.n_heads, s.d_model / s.n_heads / 2);
    let x = random([s.batch, s.seq, s.d_model], device);
    let plain = device.clone().inner();
    let table = random([s.seq, half], &plain);
    let full = Tensor::cat(vec![table.clone(), table.clone()], 1).unsqueeze::<4>();
    Box::new(move || {
        let x = split(x.clone(), heads);
        merge(if fused {
            rotate(x, table.clone(), table.clone())
        } else {
            let (a, b) = (
                x.clone().narrow(3, 0, half),
                x.clone().narrow(3, half, half),
            );
            let turned = Tensor::cat(vec![b.neg(), a], 3);
            x * full.clone() + turned * full.clone()
        })
    })
}

fn build_weighted_sum(s: &Sizes, device: &Device, fused: bool) -> Box<dyn Fn() -> Tensor<3>> {
    let shape = [s.batch, s.seq, s.d_model];
    let states: Vec<_> = (0..s.states).map(|_| random(shape, device)).collect();
    let weights = random([s.states], device);
    Box::new(move || {
        if fused {
            return weighted_sum(states.clone(), weights.clone());
        }
        let terms = states.iter().enumerate().map(|(k, state)| {
            let weight = weights.clone().narrow(0, k, 1).reshape([1, 1, 1]);
            state.clone() * weight
        });
        terms.reduce(|sum, term| sum + term).expect("states")
    })
}

fn build_attention(s: &Sizes, device: &Device, fused: bool) -> Box<dyn Fn() -> Tensor<3>> {
    let (heads, seq) = (s.n_heads, s.seq);
    let x = || random([s.batch, seq, s.d_model], device);
    let (q, k, v) = (x(), x(), x());
    let scale = 1.0 / ((s.d_model / heads) as f64).sqrt();
    let mut mask = vec![f32::NEG_INFINITY; seq * seq];
    for (t, row) in mask.chunks_exact_mut(seq).enumerate() {
        row[..=t].fill(0.0);
    }
    let mask = burn::tensor::TensorData::new::<f32, _>(mask, [1, 1, seq, seq]);
    let mask = Tensor::<4>::from_data(mask, &device.clone().inner());
    Box::new(move || {
        let [q, k, v] = [&q, &k, &v].map(|x| split(x.clone(), heads));
        merge(if fused {
            causal_attention(q, k, v, scale)
        } else {
            let scores = (q * scale).matmul(k.transpose()) + mask.clone();
            softmax(scores, 3).matmul(v)
        })
    })
}

fn build_loss(s: &Sizes, device: &Device, fused: bool) -> Box<dyn Fn() -> Tensor<3>> {
    let (tokens, vocab) = (s.batch * s.seq, s.vocab);
    let hidden = random([tokens, s.d_model], device);
    let embedding = random([vocab, s.d_model], device);
    let plain = device.clone().inner();
    let targets = Tensor::<1, Int>::arange(0..tokens as i64, &plain) * 7919 % vocab as i64;
    let weights = Tensor::<1>::ones([tokens], &plain) / tokens as f64;
    Box::new(move || {
        let (hidden, projection) = (hidden.clone(), embedding.clone().transpose());
        let loss = if fused {
            linear_cross_entropy(hidden, projection, targets.clone(), weights.clone())
        } else {
            let log_p = log_softmax(hidden.matmul(projection), 1);
            let picked = log_p.gather(1, targets.clone().unsqueeze_dim(1));
            (picked.squeeze_dim::<1>(1) * weights.clone()).sum().neg()
        };
        loss.reshape([1, 1, 1])
    })
}

/// A projection by the same weight four times, as in a layer with three corrections.
fn build_linear(s: &Sizes, device: &Device, fused: bool) -> Box<dyn Fn() -> Tensor<3>> {
    let x = random([s.batch, s.seq, s.d_model], device);
    let weight = random([s.d_model, s.d_model], device);
    Box::new(move || {
        let project = |x: Tensor<3>| match fused {
            true => linear(x, weight.clone()),
            false => burn::tensor::module::linear(x, weight.clone(), None),
        };
        (0..4).fold(x.clone(), |x, _| project(x))
    })
}

fn operations(criterion: &mut Criterion) {
    let operations: [(&str, Build); 8] = [
        ("linear", build_linear),
        ("swiglu", build_swiglu),
        ("rms_norm", build_rms_norm),
        ("layer_norm", build_layer_norm),
        ("rotate", build_rotate),
        ("weighted_sum", build_weighted_sum),
        ("causal_attention", build_attention),
        ("linear_cross_entropy", build_loss),
    ];
    let (plain, autodiff) = (Device::default(), Device::default().autodiff());
    for sizes in &MODELS {
        for (name, build) in &operations {
            for (pass, device) in [("forward", &plain), ("both", &autodiff)] {
                let mut group = criterion.benchmark_group(format!("{}/{name}/{pass}", sizes.name));
                for (body, fused) in [("fused", true), ("composed", false)] {
                    let run = build(sizes, device, fused);
                    group.bench_function(BenchmarkId::from_parameter(body), |b| {
                        b.iter(|| {
                            let y = run();
                            if device.is_autodiff() {
                                // The product makes the incoming gradient a separate tensor, as in a model.
                                drop(black_box((y * 0.5).backward()));
                            } else {
                                black_box(y);
                            }
                        });
                    });
                }
                group.finish();
            }
        }
    }
}

fn main() {
    let start = SystemTime::now();
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .sample_size(10)
        .without_plots()
        .configure_from_args();
    operations(&mut criterion);
    criterion.final_summary();
    ratios::print("composed", "fused", start);
}
