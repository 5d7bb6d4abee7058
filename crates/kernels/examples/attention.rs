//! Causal attention as one fused operation and composed of Burn's operations: equal results, less
//! time.
//!
//!     cargo run --release --example attention

use std::time::Instant;

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Distribution, Tensor};
use iiet_kernels::causal_attention;

const SEQ: usize = 1024;
const HEADS: usize = 8;
const HEAD_DIM: usize = 64;

fn main() {
    let device = Device::default().autodiff();
    let random = || {
        let shape = [1, HEADS, SEQ, HEAD_DIM];
        Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), &device).require_grad()
    };
    let inputs = [random(), random(), random()];
    let scale = (HEAD_DIM as f64).sqrt().recip();

    let fused = run("fused", &inputs, |[q, k, v]| {
        causal_attention(q, k, v, scale)
    });
    let composed = run("composed", &inputs, |[q, k, v]| {
        let scores = q.matmul(k.swap_dims(2, 3)) * scale;
        let future = Tensor::<2>::ones([SEQ, SEQ], &device).triu(1).bool();
        let future = future.reshape([1, 1, SEQ, SEQ]).expand(scores.dims());
        softmax(scores.mask_fill(future, f64::NEG_INFINITY), 3).matmul(v)
    });
    for (what, a, b) in [
        ("values", &fused[0], &composed[0]),
        ("gradients to q", &fused[1], &composed[1]),
    ] {
        let difference = (a.clone() - b.clone()).abs().max().into_scalar::<f32>();
        println!("{what} differ by {difference:.1e} at most");
    }
}

/// The output and the gradient to q.
fn run(
    name: &str,
    inputs: &[Tensor<4>; 3],
    attention: impl Fn([Tensor<4>; 3]) -> Tensor<4>,
) -> [Tensor<4>; 2] {
    let started = Instant::now();
    let y = attention(inputs.clone());
    let gradients = y.clone().powi_scalar(2).sum().backward();
    let dq = inputs[0].grad(&gradients).expect("q is a leaf");
    let milliseconds = started.elapsed().as_secs_f64() * 1e3;
    println!("{name}: forward and backward in {milliseconds:.0} ms");
    [y.inner(), dq]
}
