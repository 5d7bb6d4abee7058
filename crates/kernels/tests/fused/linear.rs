use burn::tensor::{DType, Device, Tensor};
use iiet_kernels::linear;

use crate::check::{assert_differentiates, assert_equal, flat, random};

type Project = fn(Tensor<3>, Tensor<2>) -> Tensor<3>;

fn composed(x: Tensor<3>, weight: Tensor<2>) -> Tensor<3> {
    let [batch, seq, d_in] = x.dims();
    let d_out = weight.dims()[1];
    let y = x.reshape([batch * seq, d_in]).matmul(weight);
    y.reshape([batch, seq, d_out])
}

/// Batch, positions, input and output width; the weight as stored, or as the transpose of a matrix.
fn check([batch, seq, d_in, d_out]: [usize; 4], transposed: bool) {
    let inputs = [random(batch * seq * d_in, 1), random(d_in * d_out, 2)];
    let run = |x: &[Tensor<1>], project: Project| {
        let weight = match transposed {
            true => x[1].clone().reshape([d_out, d_in]).transpose(),
            false => x[1].clone().reshape([d_in, d_out]),
        };
        flat(project(x[0].clone().reshape([batch, seq, d_in]), weight))
    };
    assert_equal(&inputs, &|x| run(x, linear::<3>), &|x| run(x, composed));
}

#[test]
fn equals_the_composed_form() {
    for transposed in [false, true] {
        check([1, 1, 1, 1], transposed);
        check([2, 3, 5, 7], transposed);
        check([3, 17, 65, 33], transposed);
        check([1, 130, 31, 3], transposed);
    }
}

#[test]
fn sums_the_gradients_of_a_weight_used_twice() {
    let inputs = [random(2 * 3 * 4, 1), random(4 * 4, 2)];
    let run = |x: &[Tensor<1>], project: Project| {
        let weight = || x[1].clone().reshape([4, 4]);
        let y = x[0].clone().reshape([2, 3, 4]);
        let y = y.clone() + project(y, weight()).tanh();
        flat(project(project(y, weight()), weight().transpose()))
    };
    assert_equal(&inputs, &|x| run(x, linear::<3>), &|x| run(x, composed));
}

/// The sum is accumulated in the leaf's own gradient, here of a leaf that other operations use too.
#[test]
fn accumulates_into_the_gradient_of_a_leaf() {
    let device = Device::default().autodiff();
    let weight = Tensor::<2>::from_data([[1.0, 2.0], [3.0, 4.0]], &device).require_grad();
    let x = Tensor::<2>::from_data([[1.0, -1.0]], &device).require_grad();
    // y = x W, z = y W, loss = sum(z) + sum(W).
    let y = linear(x.clone(), weight.clone());
    let loss = linear(y, weight.clone()).sum() + weight.clone().sum();
    let grads = loss.backward();
    // y = (-2, -2); dL/dy = W 1 = (3, 7): dW = y^T 1 + x^T (3, 7) + 1; dx = W (3, 7).
    let expected = burn::tensor::TensorData::from([[2.0f32, 6.0], [-4.0, -8.0]]);
    weight
        .grad(&grads)
        .unwrap()
        .into_data()
        .assert_eq(&expected, true);
    let expected = burn::tensor::TensorData::from([[17.0f32, 37.0]]);
    x.grad(&grads)
        .unwrap()
        .into_data()
        .assert_eq(&expected, true);
}

#[test]
fn accepts_views() {
    let inputs = [random(4 * 5 * 6, 1), random(8 * 9, 2)];
    let run = |x: &[Tensor<1>], project: Project| {
        let view = x[0].clone().reshape([4, 5, 6]).swap_dims(0, 2);
        let view = view.slice([1..5, 0..3, 0..4]);
        let weight = x[1].clone().reshape([8, 9]).slice([2..6, 1..8]);
        flat(project(view, weight))
    };
    assert_equal(&inputs, &|x| run(x, linear::<3>), &|x| run(x, composed));
}

#[test]
fn gradients_equal_finite_differences() {
    assert_differentiates(&[random(6, 1), random(12, 2)], &|x| {
        let x_3 = x[0].clone().reshape([1, 2, 3]);
        flat(linear(x_3, x[1].clone().reshape([3, 4])))
    });
}

#[test]
#[should_panic = "does not match weight"]
fn rejects_a_weight_of_another_width() {
    let device = Device::default();
    linear(
        Tensor::<2>::ones([2, 3], &device),
        Tensor::ones([2, 3], &device),
    );
}

/// Up to eight rows use another kernel than more rows.
#[test]
fn few_rows_times_either_memory_layout() {
    for transposed in [false, true] {
        for rows in [1, 2, 5, 8, 9] {
            for (d_in, d_out) in [(3, 70), (64, 64), (513, 300), (40, 3001), (3001, 40)] {
                check([1, rows, d_in, d_out], transposed);
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_number_of_rows() {
    let on = |input: crate::check::Input| input.on(DType::F32, &Device::default());
    let (x, w) = (on(random(8 * 700, 1)), on(random(700 * 900, 2)));
    let x = x.reshape([8, 700]);
    for weight in [
        w.clone().reshape([700, 900]),
        w.reshape([900, 700]).transpose(),
    ] {
        let all = linear(x.clone(), weight.clone());
        for i in 0..8 {
            let alone = linear(x.clone().narrow(0, i, 1), weight.clone());
            alone
                .into_data()
                .assert_eq(&all.clone().narrow(0, i, 1).into_data(), true);
        }
    }
}
