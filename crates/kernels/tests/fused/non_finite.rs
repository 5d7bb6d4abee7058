//! Non-finite values propagate: a kernel must not turn a NaN or an infinity into a finite value, or training
//! would continue with damaged weights.

use burn::tensor::{Device, Int, Tensor};
use iiet_kernels::{
    causal_attention, layer_norm, linear_cross_entropy, rms_norm, rotate, swiglu, weighted_sum,
};

fn ones<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::ones(shape, &Device::default())
}

/// Ones with `value` in the middle of the second to last row.
fn damaged(rows: usize, columns: usize, value: f32) -> Tensor<2> {
    let spot = Tensor::full([1, 1], value, &Device::default());
    let (row, column) = (rows - 2, columns / 2);
    ones([rows, columns]).slice_assign([row..row + 1, column..column + 1], spot)
}

fn assert_not_finite<const D: usize>(x: Tensor<D>, what: &str) {
    let values = x.try_into_vec_as::<f32>().unwrap();
    assert!(
        values.iter().any(|x| !x.is_finite()),
        "{what}: the non-finite value is lost"
    );
}

#[test]
fn non_finite_values_propagate() {
    let device = Device::default();
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let x = damaged(70, 40, value);
        assert_not_finite(swiglu(x.clone(), ones([70, 40])), "swiglu's gate");
        assert_not_finite(swiglu(ones([70, 40]), x.clone()), "swiglu's value");
        assert_not_finite(rms_norm(x.clone(), ones([40]), 1e-6), "rms_norm");
        assert_not_finite(
            layer_norm(x.clone(), ones([40]), ones([40]), 1e-5),
            "layer_norm",
        );
        let terms = vec![ones([70, 40]), x.clone()];
        assert_not_finite(weighted_sum(terms, ones([2])), "weighted_sum");

        let heads: Tensor<4> = x.clone().reshape([1, 1, 70, 40]);
        let good = || ones([1, 1, 70, 40]);
        let (cos, sin) = (ones([70, 20]), ones([70, 20]));
        assert_not_finite(rotate(heads.clone(), cos, sin), "rotate");
        let (q, k, v) = (heads.clone(), heads.clone(), heads);
        assert_not_finite(
            causal_attention(q, good(), good(), 0.2),
            "attention's queries",
        );
        assert_not_finite(
            causal_attention(good(), good(), v, 0.2),
            "attention's values",
        );
        // A key of -inf has weight zero, as intended.
        if value != f32::NEG_INFINITY {
            assert_not_finite(causal_attention(good(), k, good(), 0.2), "attention's keys");
        }

        let targets = Tensor::<1, Int>::zeros([70], &device);
        let loss = linear_cross_entropy(x, ones([40, 9]), targets, ones([70]));
        assert_not_finite(loss, "linear_cross_entropy");
    }
}
