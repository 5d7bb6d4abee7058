//! Bitwise identical results for every number of threads, and correct gradients under Burn's
//! checkpointing.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use iiet_kernels::{
    CacheRow, Visibility, attention, cached_attention, causal_attention, layer_norm, linear,
    linear_cross_entropy, rms_norm, rotate, swiglu, weighted_sum,
};

use crate::check::{flat, gradients, random};

const SHAPE: [usize; 4] = [2, 70, 4, 34];

/// All operations in sequence, on `[batch, seq, heads, head_dim]` values.
fn chain(x: &[Tensor<1>]) -> Tensor<1> {
    let [batch, seq, heads, d] = SHAPE;
    let width = heads * d;
    let tables = [1, 2].map(|i| x[i].clone().reshape([seq, d / 2]));
    let (gamma, beta) = (x[3].clone(), x[4].clone());
    let y = x[0].clone().reshape([batch, seq, width]);
    let normed = rms_norm(y.clone(), gamma.clone(), 1e-5);
    let heads = normed.reshape([batch, seq, heads, d]).swap_dims(1, 2);
    let [cos, sin] = tables;
    let q = rotate(heads.clone(), cos, sin);
    let (k, v) = (heads.clone().narrow(1, 0, 2), heads.narrow(1, 2, 2));
    let causal = causal_attention(q, k.clone(), v.clone(), 0.2);
    let (k, v) = (k.narrow(2, 0, 40), v.narrow(2, 0, 40));
    let attended = attention(causal, k, v, &Visibility::keys([40, 33]), 0.2);
    let attended = attended.swap_dims(1, 2).reshape([batch, seq, width]);
    let gated = swiglu(attended.clone(), y.clone());
    let mixed = weighted_sum(vec![y, attended, gated], x[5].clone());
    let square = x[7].clone().reshape([width, width]);
    let mixed = linear(linear(mixed, square.clone()), square);
    let hidden = layer_norm(mixed, gamma, beta, 1e-5).reshape([batch * seq, width]);
    let ids: Vec<i32> = (0..batch * seq).map(|t| (t * 31 % 300) as i32).collect();
    let ids = TensorData::new::<i32, _>(ids, [batch * seq]);
    let targets = Tensor::<1, Int>::from_data(ids, &hidden.device());
    let projection = x[6].clone().reshape([300, width]).transpose();
    let weights = Tensor::ones([batch * seq], (&hidden.device(), hidden.dtype()));
    flat(linear_cross_entropy(hidden, projection, targets, weights))
}

fn inputs() -> Vec<crate::check::Input> {
    let [batch, seq, heads, d] = SHAPE;
    vec![
        random(batch * seq * heads * d, 1),
        random(seq * d / 2, 2).map(f64::cos).constant(),
        random(seq * d / 2, 2).map(f64::sin).constant(),
        random(heads * d, 3),
        random(heads * d, 4),
        random(3, 5),
        random(300 * heads * d, 6),
        random(heads * d * heads * d, 7),
    ]
}

#[test]
fn does_not_depend_on_the_number_of_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.unwrap();
        pool.install(|| gradients(&inputs(), DType::F32, &chain))
    };
    let one = run(1);
    for threads in [1, 2, 3, 7] {
        assert!(run(threads) == one, "results with {threads} threads differ");
    }
}

/// The operations of decoding: products of few rows, with a matrix and with a transposed one, and
/// attention to a cache.
#[test]
fn decoding_does_not_depend_on_the_number_of_threads() {
    let on = |n, seed| random(n, seed).on(DType::F32, &Device::default());
    let (x, z) = (on(3 * 700, 1), on(2 * 900, 2));
    let (x, z) = (x.reshape([3, 700]), z.reshape([2, 900]));
    let w = on(700 * 900, 3).reshape([700, 900]);
    let q = on(8 * 64, 4).reshape([1, 8, 1, 64]);
    let cache = on(2 * 3000 * 64, 5).reshape([1, 2, 3000, 64]);
    let row = CacheRow {
        from: 0,
        count: 1,
        cached: 2500,
    };
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let attended = cached_attention(q.clone(), cache.clone(), cache.clone(), &[row], 0.1);
            let lone = x.clone().narrow(0, 0, 1);
            [
                flat(linear(x.clone(), w.clone())),
                flat(linear(lone, w.clone())),
                flat(linear(z.clone(), w.clone().transpose())),
                flat(attended),
            ]
            .map(|y| y.into_data().try_into_vec_as::<f32>().unwrap())
        })
    };
    let one = run(1);
    for threads in [2, 5] {
        assert!(run(threads) == one, "results with {threads} threads differ");
    }
}

#[test]
fn gradients_are_the_same_under_checkpointing() {
    let (loss, expected) = gradients(&inputs(), DType::F32, &chain);
    let kept = |device: Device| {
        let leaves: Vec<_> = inputs()
            .iter()
            .map(|input| input.on(DType::F32, &device))
            .collect();
        let y = chain(&leaves);
        let grads = y.backward();
        let leaves = [0, 3, 4, 5, 6, 7].map(|i| leaves[i].grad(&grads).unwrap());
        let read = |x: Tensor<1>| x.into_data().try_into_vec_as::<f64>().unwrap();
        (read(y), leaves.map(read))
    };
    let (plain, plain_gradients) = kept(Device::default().autodiff());
    let (again, again_gradients) = kept(Device::default().autodiff().gradient_checkpointing());
    assert!(plain == loss && plain == again && plain_gradients == again_gradients);
    assert_eq!(plain_gradients.len(), expected.len());
}
