use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Device, Tensor};
use iiet_kernels::causal_attention;

use crate::check::{assert_differentiates, assert_equal, flat, random};

fn composed(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, scale: f64) -> Tensor<4> {
    let [batch, heads, seq, d] = q.dims();
    let kv_heads = k.dims()[1];
    let repeat = |x: Tensor<4>| {
        x.reshape([batch, kv_heads, 1, seq * d])
            .repeat_dim(2, heads / kv_heads)
            .reshape([batch, heads, seq, d])
    };
    let mask = Tensor::<2, Bool>::tril_mask([seq, seq], 0, &q.device());
    let scores = q.matmul(repeat(k).transpose()) * scale;
    let scores = scores.mask_fill(mask.unsqueeze::<4>(), f64::NEG_INFINITY);
    softmax(scores, 3).matmul(repeat(v))
}

/// Batch, query heads, key/value heads, positions, head width.
fn check([batch, heads, kv_heads, seq, d]: [usize; 5], by_position: bool) {
    let kv = batch * kv_heads * seq * d;
    let inputs = [
        random(batch * heads * seq * d, 1),
        random(kv, 2),
        random(kv, 3),
    ];
    let shaped = |x: &Tensor<1>, heads: usize| {
        if by_position {
            x.clone().reshape([batch, seq, heads, d]).swap_dims(1, 2)
        } else {
            x.clone().reshape([batch, heads, seq, d])
        }
    };
    let qkv = |x: &[Tensor<1>]| {
        let k = shaped(&x[1], kv_heads);
        (shaped(&x[0], heads), k, shaped(&x[2], kv_heads))
    };
    let scale = 1.0 / (d as f64).sqrt();
    assert_equal(
        &inputs,
        &|x| {
            let (q, k, v) = qkv(x);
            flat(causal_attention(q, k, v, scale).swap_dims(1, 2))
        },
        &|x| {
            let (q, k, v) = qkv(x);
            flat(composed(q, k, v, scale).swap_dims(1, 2))
        },
    );
}

#[test]
fn equals_the_composed_form() {
    check([1, 1, 1, 1, 1], false);
    check([2, 3, 3, 1, 5], false);
    check([1, 2, 2, 3, 17], false);
    check([2, 2, 2, 65, 8], true);
    check([1, 1, 1, 130, 33], false);
}

#[test]
fn equals_the_composed_form_with_grouped_queries() {
    check([2, 4, 2, 17, 6], false);
    check([2, 4, 1, 65, 6], true);
    check([1, 6, 3, 130, 4], true);
}

#[test]
fn equals_the_composed_form_over_several_tiles() {
    check([1, 2, 1, 257, 4], true);
    check([1, 1, 1, 600, 8], false);
}

#[test]
fn accepts_other_memory_layouts() {
    // Queries, keys and values of one fused projection, and keys stored transposed.
    let (seq, d) = (17, 6);
    let inputs = [random(seq * 3 * 2 * d, 1), random(2 * d * seq, 2)];
    let qkv = |x: &[Tensor<1>]| {
        let fused = x[0].clone().reshape([1, seq, 6, d]).swap_dims(1, 2);
        let k = x[1].clone().reshape([1, 2, d, seq]).swap_dims(2, 3);
        (fused.clone().narrow(1, 0, 2), k, fused.narrow(1, 3, 2))
    };
    assert_equal(
        &inputs,
        &|x| {
            let (q, k, v) = qkv(x);
            flat(causal_attention(q, k, v, 0.3))
        },
        &|x| {
            let (q, k, v) = qkv(x);
            flat(composed(q, k, v, 0.3))
        },
    );
}

#[test]
fn large_scores_do_not_overflow() {
    // Weights of one and zero: exp must not overflow or produce NaN.
    let inputs = [
        random(300 * 4, 1).map(|x| 30.0 * x),
        random(300 * 4, 2),
        random(300 * 4, 3),
    ];
    let shaped = |x: &Tensor<1>| x.clone().reshape([1, 1, 300, 4]);
    assert_equal(
        &inputs[..],
        &|x| {
            let (q, k, v) = (shaped(&x[0]), shaped(&x[1]), shaped(&x[2]));
            flat(causal_attention(q, k, v, 1.0))
        },
        &|x| {
            let (q, k, v) = (shaped(&x[0]), shaped(&x[1]), shaped(&x[2]));
            flat(composed(q, k, v, 1.0))
        },
    );
}

#[test]
fn gradients_equal_finite_differences() {
    let inputs = [random(2 * 3 * 2, 1), random(3 * 2, 2), random(3 * 2, 3)];
    assert_differentiates(&inputs, &|x| {
        let q = x[0].clone().reshape([1, 2, 3, 2]);
        let (k, v) = (x[1].clone(), x[2].clone());
        let (k, v) = (k.reshape([1, 1, 3, 2]), v.reshape([1, 1, 3, 2]));
        flat(causal_attention(q, k, v, 0.7))
    });
}

#[test]
#[should_panic = "do not match"]
fn rejects_query_heads_not_divisible_by_key_value_heads() {
    let device = Device::default();
    let heads = |n: usize| Tensor::<4>::ones([1, n, 2, 4], &device);
    causal_attention(heads(3), heads(2), heads(2), 1.0);
}

#[test]
#[should_panic = "do not match"]
fn does_not_broadcast() {
    let device = Device::default();
    let keys = |batch: usize| Tensor::<4>::ones([batch, 1, 2, 4], &device);
    causal_attention(keys(2), keys(1), keys(1), 1.0);
}
