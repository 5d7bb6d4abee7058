use burn::tensor::{Device, Tensor};
use iiet_kernels::rotate;

use crate::check::{assert_differentiates, assert_equal, flat, random};

fn composed(x: Tensor<4>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<4> {
    let half = x.dims()[3] / 2;
    let (cos, sin) = (cos.unsqueeze::<4>(), sin.unsqueeze::<4>());
    let (a, b) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
    let first = a.clone() * cos.clone() - b.clone() * sin.clone();
    Tensor::cat(vec![first, b * cos + a * sin], 3)
}

#[test]
fn equals_the_composed_form_in_every_layout() {
    for [batch, heads, seq, d] in [
        [1, 1, 1, 2],
        [2, 3, 1, 6],
        [1, 2, 17, 10],
        [2, 1, 65, 4],
        [3, 4, 130, 34],
    ] {
        let angles = random(seq * d / 2, 2);
        let inputs = [
            random(batch * heads * seq * d, 1),
            angles.clone().map(f64::cos).constant(),
            angles.map(f64::sin).constant(),
        ];
        let tables = |x: &[Tensor<1>]| [1, 2].map(|i| x[i].clone().reshape([seq, d / 2]));
        let layouts: [&dyn Fn(&Tensor<1>) -> Tensor<4>; 4] = [
            &|x| x.clone().reshape([batch, heads, seq, d]),
            &|x| x.clone().reshape([batch, seq, heads, d]).swap_dims(1, 2),
            &|x| x.clone().reshape([batch, heads, d, seq]).swap_dims(2, 3),
            &|x| x.clone().reshape([batch, heads, seq, d]).flip([2]),
        ];
        for layout in layouts {
            assert_equal(
                &inputs,
                &|x| {
                    let [cos, sin] = tables(x);
                    flat(rotate(layout(&x[0]), cos, sin))
                },
                &|x| {
                    let [cos, sin] = tables(x);
                    flat(composed(layout(&x[0]), cos, sin))
                },
            );
        }
    }
}

#[test]
fn shared_tensors_are_not_modified() {
    // A shared tensor must not be rotated in place.
    let device = Device::default();
    let x = Tensor::<4>::ones([1, 1, 1, 2], &device);
    let (cos, sin) = (
        Tensor::zeros([1, 1], &device),
        Tensor::ones([1, 1], &device),
    );
    let y = rotate(x.clone(), cos, sin)
        .into_data()
        .try_into_vec_as::<f32>()
        .unwrap();
    assert_eq!(y, [-1.0, 1.0]);
    assert_eq!(x.into_data().try_into_vec_as::<f32>().unwrap(), [1.0, 1.0]);
}

#[test]
fn gradients_equal_finite_differences() {
    let inputs = [
        random(16, 1),
        random(4, 2).constant(),
        random(4, 3).constant(),
    ];
    assert_differentiates(&inputs, &|x| {
        let [cos, sin] = [1, 2].map(|i| x[i].clone().reshape([2, 2]));
        flat(rotate(x[0].clone().reshape([2, 1, 2, 4]), cos, sin))
    });
}

#[test]
#[should_panic = "needs tables"]
fn rejects_tables_of_another_length() {
    let device = Device::default();
    let table = || Tensor::<2>::ones([2, 2], &device);
    rotate(Tensor::ones([1, 1, 3, 4], &device), table(), table());
}
