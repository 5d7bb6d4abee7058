//! Attention with dropout of its weights.

use burn::tensor::activation::softmax;
use burn::tensor::{DType, Device, Tensor};
use iiet_kernels::{DropoutMask, Visibility, attention, dropped_attention};

use crate::check::{Input, assert_differentiates, assert_equal, flat, gradients, random};

const KEY: [u32; 2] = [5, 6];
const STREAM: [u32; 2] = [7, 8];

fn mask(rate: f64) -> DropoutMask {
    DropoutMask::new(KEY, STREAM, rate)
}

/// The definition of [`DropoutMask`] from its words: row by row of `[rows, columns]`.
fn by_definition(rows: usize, columns: usize, rate: f64) -> Vec<f64> {
    let of = |i: usize| {
        let (row, column) = (i / columns, i % columns);
        let counter = (column / 64 * 16 + column % 16) as u32;
        let words = DropoutMask::words(KEY, [counter, row as u32, STREAM[0], STREAM[1]]);
        let uniform = f64::from(words[column % 64 / 16]) / 4_294_967_296.0;
        if uniform < rate {
            0.0
        } else {
            1.0 / (1.0 - rate)
        }
    };
    (0..rows * columns).map(of).collect()
}

/// Attention by Burn's own operations with the mask of [`by_definition`].
fn composed(
    [q, k, v]: [Tensor<4>; 3],
    visible: impl Fn(usize, usize, usize) -> bool,
    rate: f64,
) -> Tensor<4> {
    let [batch, heads, queries, d] = q.dims();
    let [_, kv_heads, keys, _] = k.dims();
    let repeat = |x: Tensor<4>| {
        let x = x.reshape([batch, kv_heads, 1, keys * d]);
        let x = x.repeat_dim(2, heads / kv_heads);
        x.reshape([batch, heads, keys, d])
    };
    let options = (&q.device(), q.dtype());
    let shape = [batch, heads, queries, keys];
    let hidden = (0..batch * heads * queries * keys).map(|i| {
        let (b, query, key) = (i / (heads * queries * keys), i / keys % queries, i % keys);
        if visible(b, query, key) {
            0.0
        } else {
            f64::NEG_INFINITY
        }
    });
    let of = |values: Vec<f64>| {
        let data = burn::tensor::TensorData::new::<f64, _>(values, shape);
        Tensor::<4>::from_data(data, options)
    };
    let scores = q.matmul(repeat(k).transpose()) * 0.4 + of(hidden.collect());
    let kept = of(by_definition(batch * heads * queries, keys, rate));
    (softmax(scores, 3) * kept).matmul(repeat(v))
}

/// Batch, query heads, key/value heads, queries, keys, width of a head.
type Sizes = [usize; 6];

fn inputs([batch, heads, kv_heads, queries, keys, d]: Sizes) -> [Input; 3] {
    let kv = batch * kv_heads * keys * d;
    let q = batch * heads * queries * d;
    [random(q, 1), random(kv, 2), random(kv, 3)]
}

fn shaped([batch, heads, kv_heads, queries, keys, d]: Sizes, x: &[Tensor<1>]) -> [Tensor<4>; 3] {
    let of = |i: usize, heads, seq| {
        let x: Tensor<1> = x[i].clone();
        x.reshape([batch, heads, seq, d])
    };
    [
        of(0, heads, queries),
        of(1, kv_heads, keys),
        of(2, kv_heads, keys),
    ]
}

fn run(sizes: Sizes, x: &[Tensor<1>], visible: &Visibility, rate: f64) -> Tensor<1> {
    let [q, k, v] = shaped(sizes, x);
    flat(dropped_attention(q, k, v, visible, 0.4, &mask(rate)))
}

#[test]
fn equals_the_composed_form_with_a_mask_by_its_definition() {
    for (sizes, rate) in [
        ([1, 1, 1, 1, 1, 1], 0.1),
        ([2, 4, 2, 17, 17, 6], 0.3),
        ([2, 2, 1, 65, 65, 8], 0.1),
        ([1, 2, 2, 257, 257, 4], 0.5),
        // The backward pass splits long texts into parts.
        ([1, 2, 1, 600, 600, 4], 0.9),
    ] {
        assert_equal(
            &inputs(sizes),
            &|x| run(sizes, x, &Visibility::Causal, rate),
            &|x| {
                flat(composed(
                    shaped(sizes, x),
                    |_, query, key| key <= query,
                    rate,
                ))
            },
        );
    }
}

#[test]
fn padded_and_crossed_equal_the_composed_form() {
    for (sizes, visible) in [
        ([2, 4, 2, 17, 17, 6], [17, 3]),
        ([2, 2, 2, 1, 9, 8], [9, 4]),
        ([2, 4, 1, 65, 300, 6], [300, 129]),
        ([2, 6, 3, 130, 257, 4], [128, 1]),
    ] {
        assert_equal(
            &inputs(sizes),
            &|x| run(sizes, x, &Visibility::keys(visible), 0.2),
            &|x| {
                flat(composed(
                    shaped(sizes, x),
                    |b, _, key| key < visible[b],
                    0.2,
                ))
            },
        );
    }
}

#[test]
fn gradients_equal_finite_differences() {
    for (sizes, visible) in [
        ([1, 2, 1, 3, 3, 2], Visibility::Causal),
        ([2, 2, 1, 3, 4, 2], Visibility::keys([4, 2])),
    ] {
        assert_differentiates(&inputs(sizes), &|x| run(sizes, x, &visible, 0.4));
    }
}

#[test]
fn a_rate_of_zero_is_bitwise_attention_without_dropout() {
    let sizes = [2, 4, 2, 130, 130, 6];
    for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16] {
        let plain = gradients(&inputs(sizes), dtype, &|x| {
            let [q, k, v] = shaped(sizes, x);
            flat(attention(q, k, v, &Visibility::Causal, 0.4))
        });
        let dropped = gradients(&inputs(sizes), dtype, &|x| {
            run(sizes, x, &Visibility::Causal, 0.0)
        });
        assert!(plain == dropped, "{dtype:?}");
    }
}

#[test]
fn half_precision_drops_the_same_weights() {
    // Values of one mix to the sum of the weights that are kept, where a flipped bit of the mask is seen:
    // equal scores give equal weights of 1/300.
    let sizes = [1, 2, 1, 5, 300, 8];
    let device = Device::default();
    let sums = |dtype| {
        let of = |shape, x: f32| Tensor::<4>::full(shape, x, (&device, dtype));
        let (q, k) = (of([1, 2, 5, 8], 0.0), of([1, 1, 300, 8], 0.0));
        let v = of([1, 1, 300, 8], 1.0);
        let y = dropped_attention(q, k, v, &Visibility::keys([300]), 0.4, &mask(0.25));
        y.cast(DType::F64)
            .into_data()
            .try_into_vec_as::<f64>()
            .unwrap()
    };
    let kept = by_definition(10, sizes[4], 0.25);
    let expected: Vec<f64> = kept
        .chunks(300)
        .map(|row| row.iter().sum::<f64>() / 300.0)
        .collect();
    for (dtype, tolerance) in [
        (DType::F64, 1e-12),
        (DType::F32, 1e-6),
        (DType::F16, 1e-3),
        (DType::BF16, 8e-3),
    ] {
        for (i, found) in sums(dtype).into_iter().enumerate() {
            let apart = (found - expected[i / 8]).abs();
            assert!(
                apart <= tolerance * expected[i / 8],
                "{dtype:?} {i}: {apart}"
            );
        }
    }
}

#[test]
fn half_precision_equals_f32_up_to_rounding() {
    let sizes = [2, 4, 2, 150, 150, 32];
    let at = |dtype| {
        gradients(&inputs(sizes), dtype, &|x| {
            run(sizes, x, &Visibility::Causal, 0.3)
        })
    };
    let (expected, expected_gradients) = at(DType::F32);
    for (dtype, tolerance) in [(DType::F16, 1e-2), (DType::BF16, 6e-2)] {
        let (value, gradients) = at(dtype);
        crate::check::assert_close(&format!("{dtype:?}"), &value, &expected, tolerance);
        for (found, expected) in gradients.iter().zip(&expected_gradients) {
            crate::check::assert_close(&format!("{dtype:?}"), found, expected, tolerance);
        }
    }
}

#[test]
fn does_not_depend_on_the_number_of_threads() {
    let sizes = [2, 4, 2, 200, 200, 18];
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let tensor = mask(0.3).tensor([70_000], &Device::default());
            let of_tensor = tensor.into_data().try_into_vec_as::<f32>().unwrap();
            let attended = gradients(&inputs(sizes), DType::F32, &|x| {
                run(sizes, x, &Visibility::Causal, 0.3)
            });
            (attended, of_tensor)
        })
    };
    let one = run(1);
    for threads in [2, 3] {
        assert!(run(threads) == one, "results with {threads} threads differ");
    }
}

/// With equal scores the output is a mean of the values, which the masks of many keys leave on average: by
/// the law of large numbers.
#[test]
fn the_mean_over_many_masks_approximates_the_output_without_dropout() {
    let device = Device::default();
    let v = Tensor::<1>::from_floats([1.0, -2.0, 3.0, 0.5, 4.0, -1.0], &device);
    let v = v.reshape([1, 1, 6, 1]);
    let q = Tensor::<4>::zeros([1, 1, 1, 1], &device);
    let k = Tensor::<4>::zeros([1, 1, 6, 1], &device);
    let n = 4000;
    let mean = (0..n).map(|i| {
        let mask = DropoutMask::new(KEY, [0, i], 0.3);
        let visible = Visibility::keys([6]);
        let y = dropped_attention(q.clone(), k.clone(), v.clone(), &visible, 1.0, &mask);
        y.into_scalar::<f64>() / f64::from(n)
    });
    let (mean, expected): (f64, f64) = (mean.sum(), 5.5 / 6.0);
    // One output has the variance sum v^2 / 36 * p / (1 - p), 0.37.
    let deviation = (0.372 / f64::from(n)).sqrt();
    assert!((mean - expected).abs() < 4.0 * deviation, "{mean}");
}
