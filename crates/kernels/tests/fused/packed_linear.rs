use burn::tensor::{DType, Device, Distribution, Int, Tensor, Tolerance};
use iiet_compress::{Activations, PackedMatrix, Range, Scheme, round};
use iiet_kernels::{PackedWeight, packed_linear};

/// Every scheme, with a matrix of a width that only its group divides and an odd number of outputs.
fn matrices() -> impl Iterator<Item = PackedMatrix> {
    let schemes = [(8, 32), (8, 128), (4, 32), (4, 64), (4, 128)];
    let schemes = schemes.into_iter().flat_map(|(bits, group)| {
        [true, false].map(|symmetric| Scheme::new(bits, group, symmetric).unwrap())
    });
    schemes.map(|scheme| {
        let (d_out, d_in) = (37, 3 * scheme.group());
        // Not around zero, so that zero points differ.
        let weight = |i: usize| (i as f32 * 0.7).sin() * (i as f32 * 0.13).cos() + 0.2;
        let weights: Vec<f32> = (0..d_out * d_in).map(weight).collect();
        round(&weights, d_out, d_in, scheme, Range::default()).unwrap()
    })
}

/// The matrix by its definition.
fn values(matrix: &PackedMatrix, device: &Device) -> Tensor<2> {
    let view = matrix.view();
    let (d_out, d_in, group) = (view.d_out(), view.d_in(), view.scheme().group());
    let value = |i: usize| {
        let (row, column) = (i / d_in, i % d_in);
        view.grid(row, column / group).value(view.code(row, column))
    };
    let values: Vec<f32> = (0..d_out * d_in).map(value).collect();
    Tensor::<1>::from_data(values.as_slice(), device).reshape([d_out, d_in])
}

#[test]
fn products_of_few_and_of_many_rows_are_those_of_the_widened_matrix() {
    let device = Device::default();
    device.seed(7);
    for matrix in matrices() {
        let weight = PackedWeight::new(&matrix.view(), &device);
        let w = values(&matrix, &device);
        for (batch, seq) in [(1, 1), (2, 4), (1, 9), (3, 70)] {
            let normal = Distribution::Normal(0.0, 1.0);
            let x = Tensor::<3>::random([batch, seq, weight.d_in()], normal, &device);
            let expected = x
                .clone()
                .reshape([batch * seq, weight.d_in()])
                .matmul(w.clone().transpose());
            let expected = expected.reshape([batch, seq, weight.d_out()]);
            let y = packed_linear(x.clone(), &weight);
            let tolerance = Tolerance::<f32>::rel_abs(1e-5, 1e-4);
            y.into_data()
                .assert_approx_eq(&expected.clone().into_data(), tolerance);
            // bf16 rounds the input, the result, and for many rows the matrix.
            let y = packed_linear(x.cast(DType::BF16), &weight);
            assert_eq!(y.dtype(), DType::BF16);
            let tolerance = Tolerance::<f32>::rel_abs(0.02, 0.15);
            let y = y.cast(DType::F32);
            y.into_data()
                .assert_approx_eq(&expected.into_data(), tolerance);
        }
    }
}

/// x with each group of inputs at the nearest multiples of 1/127 of its largest.
fn rounded(x: &Tensor<3>, group: usize) -> Tensor<3> {
    let (shape, device) = (x.dims(), x.device());
    let mut values = x.clone().try_into_vec_as::<f32>().unwrap();
    for group in values.chunks_exact_mut(group) {
        let largest = group.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        for x in group {
            *x = (*x * (127.0 / largest)).round_ties_even() * (largest / 127.0);
        }
    }
    Tensor::<1>::from_data(values.as_slice(), &device).reshape(shape)
}

#[test]
fn products_of_rounded_inputs_are_those_of_the_widened_matrix_on_every_path() {
    let device = Device::default();
    device.seed(8);
    for matrix in matrices() {
        let weight = PackedWeight::new(&matrix.view(), &device);
        let group = weight.scheme().group();
        let exact = weight.clone();
        let weight = weight.with_activations(Activations::Int8);
        assert_eq!(weight.activations(), Activations::Int8);
        let w = values(&matrix, &device).transpose();
        for (batch, seq) in [(1, 1), (2, 4), (3, 70)] {
            let normal = Distribution::Normal(0.0, 1.0);
            let x = Tensor::<3>::random([batch, seq, weight.d_in()], normal, &device);
            let product = |x: Tensor<3>| {
                let rows = x.reshape([batch * seq, weight.d_in()]);
                rows.matmul(w.clone()).reshape([batch, seq, weight.d_out()])
            };
            let expected = product(rounded(&x, group)).into_data();
            let tolerance = Tolerance::<f32>::rel_abs(1e-5, 2e-4);
            let y = packed_linear(x.clone(), &weight);
            y.clone().into_data().assert_approx_eq(&expected, tolerance);
            // What other backends compute.
            let composed = packed_linear(x.clone().autodiff(), &weight).inner();
            composed.into_data().assert_approx_eq(&expected, tolerance);
            // The largest difference is far above the tolerance.
            let apart = (y - packed_linear(x.clone(), &exact)).abs().max();
            assert!(apart.into_scalar::<f32>() > 2e-3);
            // In bf16 the integers are those of the input's own values.
            let halves = x.cast(DType::BF16);
            let expected = product(rounded(&halves.clone().cast(DType::F32), group));
            let y = packed_linear(halves, &weight).cast(DType::F32);
            let tolerance = Tolerance::<f32>::rel_abs(0.02, 0.15);
            y.into_data()
                .assert_approx_eq(&expected.into_data(), tolerance);
        }
    }
}

#[test]
fn a_view_of_rows_is_multiplied_like_a_copy() {
    let device = Device::default();
    let matrix = matrices().next().unwrap();
    let weight = PackedWeight::new(&matrix.view(), &device);
    let x = Tensor::<3>::random([2, 5, weight.d_in()], Distribution::Default, &device);
    let turned = x.clone().swap_dims(0, 1);
    let copy = Tensor::<3>::from_data(turned.clone().into_data(), &device);
    let (y, expected) = (packed_linear(turned, &weight), packed_linear(copy, &weight));
    y.into_data().assert_eq(&expected.into_data(), true);
}

#[test]
fn the_gradient_to_the_input_is_that_of_the_widened_matrix() {
    let device = Device::default();
    let matrix = matrices().last().unwrap();
    let weight = PackedWeight::new(&matrix.view(), &device);
    let w = values(&matrix, &device).autodiff();
    let leaf = Tensor::<2>::random([3, weight.d_in()], Distribution::Default, &device);
    let gradient = |f: &dyn Fn(Tensor<2>) -> Tensor<2>| {
        let leaf = leaf.clone().autodiff().require_grad();
        let grads = f(leaf.clone()).powi_scalar(2).sum().backward();
        leaf.grad(&grads).unwrap().into_data()
    };
    let found = gradient(&|x| packed_linear(x, &weight));
    let expected = gradient(&|x| x.matmul(w.clone().transpose()));
    found.assert_approx_eq(&expected, Tolerance::<f32>::rel_abs(1e-4, 1e-3));
}

#[test]
fn rows_and_the_whole_matrix_are_the_exact_values() {
    let device = Device::default();
    for matrix in matrices() {
        let weight = PackedWeight::new(&matrix.view(), &device);
        let w = values(&matrix, &device);
        weight
            .widened()
            .into_data()
            .assert_eq(&w.clone().into_data(), true);
        let ids = Tensor::<2, Int>::from_data([[36, 0], [5, 5]], &device);
        let rows = weight.embedding(ids.clone()).into_data();
        let expected = w.select(0, ids.reshape([4])).reshape([2, 2, weight.d_in()]);
        rows.assert_eq(&expected.into_data(), true);
        assert_eq!(weight.to_matrix().unwrap(), matrix);
    }
}

#[test]
#[should_panic(expected = "does not match a weight with 96 inputs")]
fn a_wrong_width_is_named() {
    let device = Device::default();
    let weight = PackedWeight::new(&matrices().next().unwrap().view(), &device);
    packed_linear(Tensor::<2>::zeros([1, 64], &device), &weight);
}
