use burn::tensor::activation::softmax;
use burn::tensor::{Bool, DType, Device, Tensor, TensorData};
use iiet_kernels::{Visibility, attention, causal_attention};

use crate::check::{assert_differentiates, assert_equal, flat, random};

fn composed(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, scale: f64) -> Tensor<4> {
    let seq = q.dims()[2];
    let mask = Tensor::<2, Bool>::tril_mask([seq, seq], 0, &q.device());
    masked(q, k, v, mask.unsqueeze(), scale)
}

/// With a mask that is true where a key is hidden.
fn masked(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    hidden: Tensor<4, Bool>,
    scale: f64,
) -> Tensor<4> {
    let [batch, heads, _, d] = q.dims();
    let [_, kv_heads, keys, _] = k.dims();
    let repeat = |x: Tensor<4>| {
        x.reshape([batch, kv_heads, 1, keys * d])
            .repeat_dim(2, heads / kv_heads)
            .reshape([batch, heads, keys, d])
    };
    let scores = q.matmul(repeat(k).transpose()) * scale;
    softmax(scores.mask_fill(hidden, f64::NEG_INFINITY), 3).matmul(repeat(v))
}

/// Query heads, key/value heads, queries, keys, head width; and the keys that each row sees.
fn check_keys([heads, kv_heads, queries, keys, d]: [usize; 5], visible: &[usize]) {
    let batch = visible.len();
    let kv = batch * kv_heads * keys * d;
    let inputs = [
        random(batch * heads * queries * d, 1),
        random(kv, 2),
        random(kv, 3),
    ];
    let qkv = |x: &[Tensor<1>]| {
        let of = |x: &Tensor<1>, seq, heads| {
            let x = x.clone().reshape([batch, seq, heads, d]);
            x.swap_dims(1, 2)
        };
        let k = of(&x[1], keys, kv_heads);
        (of(&x[0], queries, heads), k, of(&x[2], keys, kv_heads))
    };
    let scale = 1.0 / (d as f64).sqrt();
    let hidden = |device: &Device| {
        let row = |n: &usize| (0..keys).map(|key| key >= *n).collect::<Vec<_>>();
        let all: Vec<bool> = visible.iter().flat_map(row).collect();
        Tensor::<4, Bool>::from_data(TensorData::new(all, [batch, 1, 1, keys]), device)
            .expand([batch, heads, queries, keys])
    };
    assert_equal(
        &inputs,
        &|x| {
            let (q, k, v) = qkv(x);
            let y = attention(q, k, v, &Visibility::keys(visible), scale);
            flat(y.swap_dims(1, 2))
        },
        &|x| {
            let (q, k, v) = qkv(x);
            let hidden = hidden(&q.device());
            flat(masked(q, k, v, hidden, scale).swap_dims(1, 2))
        },
    );
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

/// The backward pass splits long texts into parts.
#[test]
fn equals_the_composed_form_on_long_texts() {
    check([1, 2, 1, 1100, 4], true);
}

#[test]
fn equals_the_composed_form_over_several_tiles() {
    check([1, 2, 1, 257, 4], true);
    check([1, 1, 1, 600, 8], false);
}

#[test]
fn padded_and_crossed_equal_the_composed_form() {
    // Every token sees every token; some see less; and queries and keys of different lengths, both
    // shorter and longer than a tile.
    check_keys([1, 1, 1, 1, 1], &[1]);
    check_keys([3, 3, 17, 17, 5], &[17, 17]);
    check_keys([4, 2, 17, 17, 6], &[17, 3, 1]);
    check_keys([2, 2, 1, 9, 8], &[9, 4]);
    check_keys([2, 1, 70, 5, 8], &[5, 2]);
    check_keys([4, 1, 65, 300, 6], &[300, 129]);
    check_keys([6, 3, 130, 257, 4], &[128, 257, 1]);
}

#[test]
fn hidden_keys_receive_no_gradient_and_are_not_read() {
    let device = Device::default();
    let at = |x: f32| Tensor::<4>::full([1, 2, 3, 4], x, &device);
    let spoilt = |x: Tensor<4>| {
        let padding = Tensor::full([1, 2, 2, 4], 1e30, &device);
        Tensor::cat(vec![x, padding], 2).autodiff().require_grad()
    };
    let visible = Visibility::keys([3]);
    for dtype in [DType::F32, DType::F64] {
        let (q, k, v) = (at(0.5), spoilt(at(0.1)), spoilt(at(7.0)));
        let [q, k, v] = [q.autodiff(), k, v].map(|x| x.cast(dtype));
        let (k, v) = (k.detach().require_grad(), v.detach().require_grad());
        let y = attention(q, k.clone(), v.clone(), &visible, 0.5);
        // Equal values are mixed to themselves.
        let far = (y.clone() - 7.0).abs().max().into_scalar::<f64>();
        assert!(far < 1e-5, "{dtype:?}: {far}");
        let gradients = y.sum().backward();
        for x in [k, v] {
            let hidden = x.grad(&gradients).unwrap().narrow(2, 3, 2);
            assert_eq!(hidden.abs().max().into_scalar::<f64>(), 0.0, "{dtype:?}");
        }
    }
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
fn gradients_of_crossed_attention_equal_finite_differences() {
    let inputs = [
        random(2 * 2 * 3 * 2, 1),
        random(2 * 4 * 2, 2),
        random(2 * 4 * 2, 3),
    ];
    assert_differentiates(&inputs, &|x| {
        let q = x[0].clone().reshape([2, 2, 3, 2]);
        let (k, v) = (x[1].clone(), x[2].clone());
        let (k, v) = (k.reshape([2, 1, 4, 2]), v.reshape([2, 1, 4, 2]));
        flat(attention(q, k, v, &Visibility::keys([4, 2]), 0.7))
    });
}

#[test]
#[should_panic = "0 of 3 keys are visible in row 1"]
fn rejects_a_row_without_visible_keys() {
    let x = Tensor::<4>::ones([2, 1, 3, 4], &Device::default());
    attention(x.clone(), x.clone(), x, &Visibility::keys([3, 0]), 1.0);
}

#[test]
#[should_panic = "2 queries have 3 keys"]
fn rejects_causal_attention_to_another_text() {
    let device = Device::default();
    let of = |seq| Tensor::<4>::ones([2, 1, seq, 4], &device);
    attention(of(2), of(3), of(3), &Visibility::Causal, 1.0);
}

#[test]
#[should_panic = "1 numbers of keys are given for 2 rows"]
fn rejects_a_visibility_of_another_batch() {
    let x = Tensor::<4>::ones([2, 1, 3, 4], &Device::default());
    attention(x.clone(), x.clone(), x, &Visibility::keys([3]), 1.0);
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
