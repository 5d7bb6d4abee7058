use burn::tensor::{DType, Device, Distribution, Tensor, Tolerance, activation};
use iiet_kernels::log_softmax;

#[test]
fn equals_the_composed_form() {
    for [rows, n] in [[1, 1], [3, 7], [5, 33], [2, 20_000], [70, 300]] {
        for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16] {
            let normal = Distribution::Normal(90.0, 3.0);
            let x = Tensor::<2>::random([rows, n], normal, &Device::default()).cast(dtype);
            let found = log_softmax(x.clone());
            assert_eq!(found.dtype(), dtype);
            let expected = activation::log_softmax(x.cast(DType::F64), 1);
            // Values up to 20; half precision rounds once.
            let tolerance = match dtype {
                DType::BF16 => 8e-2,
                DType::F16 => 1e-2,
                _ => 3e-5,
            };
            found
                .cast(DType::F64)
                .into_data()
                .assert_approx_eq::<f64>(&expected.into_data(), Tolerance::absolute(tolerance));
        }
    }
}

#[test]
fn of_a_view_with_impossible_tokens() {
    let x = Tensor::<2>::from_data(
        [[0.0, 1.0], [f32::NEG_INFINITY, 0.0], [0.0, 1.0]],
        &Device::default(),
    );
    let found = log_softmax(x.transpose());
    let values = found.try_into_vec_as::<f32>().unwrap();
    let half = -(2.0f32.ln());
    let third = -((2.0 * 1.0f32.exp() + 1.0).ln());
    for (found, expected) in values.iter().zip([
        half,
        f32::NEG_INFINITY,
        half,
        1.0 + third,
        third,
        1.0 + third,
    ]) {
        assert!(
            (found - expected).abs() < 1e-6 || found == &expected,
            "{values:?}"
        );
    }
}

#[test]
fn non_finite_logits_spoil_their_row_alone() {
    for value in [f32::NAN, f32::INFINITY] {
        let x = Tensor::<2>::from_data([[0.0, value, 1.0], [0.0, 0.0, 0.0]], &Device::default());
        let values = log_softmax(x).try_into_vec_as::<f32>().unwrap();
        assert!(values[..3].iter().all(|x| x.is_nan()), "{values:?}");
        assert!(values[3..].iter().all(|x| x.is_finite()), "{values:?}");
    }
}
