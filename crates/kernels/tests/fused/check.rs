//! Comparison of values and gradients of two functions.
//!
//! Inputs are flat leaves that the functions reshape, permute and slice themselves, so that views
//! and layouts are differentiated too.

use burn::tensor::{DType, Device, Tensor, TensorData};

/// One flat input.
#[derive(Clone)]
pub struct Input {
    values: Vec<f64>,
    differentiated: bool,
}

/// `n` reproducible values, roughly normal.
pub fn random(n: usize, seed: u64) -> Input {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    // Rounded to f32, so that both precisions use equal inputs.
    let mut value = || f64::from(((0..6).map(|_| uniform()).sum::<f64>() - 3.0) as f32 * 1.4);
    Input {
        values: (0..n).map(|_| value()).collect(),
        differentiated: true,
    }
}

impl Input {
    /// The same values as constants.
    pub fn constant(self) -> Self {
        Self {
            differentiated: false,
            ..self
        }
    }

    /// As a flat leaf.
    pub fn on(&self, dtype: DType, device: &Device) -> Tensor<1> {
        let n = self.values.len();
        let data = TensorData::new::<f64, _>(self.values.clone(), [n]);
        let leaf = Tensor::from_data(data, (device, dtype));
        if self.differentiated && device.is_autodiff() {
            leaf.require_grad()
        } else {
            leaf
        }
    }

    pub fn map(mut self, f: impl Fn(f64) -> f64) -> Self {
        for value in &mut self.values {
            *value = f64::from(f(*value) as f32);
        }
        self
    }
}

/// A function of flat inputs with a flat output.
pub type Function<'a> = &'a dyn Fn(&[Tensor<1>]) -> Tensor<1>;

pub fn flat<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let n = x.shape().num_elements();
    x.reshape([n])
}

fn read(x: Tensor<1>) -> Vec<f64> {
    x.into_data().try_into_vec_as::<f64>().unwrap()
}

/// The function's value, on a plain device.
pub fn value(inputs: &[Input], dtype: DType, f: Function) -> Vec<f64> {
    let device = Device::default();
    let leaves: Vec<_> = inputs.iter().map(|i| i.on(dtype, &device)).collect();
    read(f(&leaves))
}

/// The function's value, and the gradients of its inner product with fixed numbers.
pub fn gradients(inputs: &[Input], dtype: DType, f: Function) -> (Vec<f64>, Vec<Vec<f64>>) {
    let device = Device::default().autodiff();
    let leaves: Vec<_> = inputs.iter().map(|i| i.on(dtype, &device)).collect();
    let y = f(&leaves);
    let cotangent = cotangent(y.dims()[0]).constant().on(dtype, &device);
    let grads = (y.clone() * cotangent).sum().backward();
    let gradients = inputs
        .iter()
        .zip(&leaves)
        .filter(|(input, _)| input.differentiated)
        .map(|(_, leaf)| read(leaf.grad(&grads).expect("a gradient for every input")))
        .collect();
    (read(y), gradients)
}

fn cotangent(n: usize) -> Input {
    random(n, 99)
}

/// Asserts that entries differ by at most `tolerance` times the largest one.
pub fn assert_close(what: &str, actual: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1e-3f64, |m, x| m.max(x.abs()));
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        // Written such that NaN fails.
        assert!(
            (a - e).abs() <= tolerance * largest,
            "{what}[{i}]: {a}, expected {e} (largest {largest})"
        );
    }
}

/// Asserts that fused and composed form agree, in value and gradients, in f32 and in f64, and that
/// the value without autodiff is bitwise identical.
pub fn assert_equal(inputs: &[Input], fused: Function, composed: Function) {
    let (expected, expected_gradients) = gradients(inputs, DType::F64, composed);
    for (dtype, tolerance, gradient_tolerance) in
        [(DType::F32, 1e-5, 1e-4), (DType::F64, 1e-12, 1e-11)]
    {
        let (actual, actual_gradients) = gradients(inputs, dtype, fused);
        assert_close(&format!("{dtype:?} value"), &actual, &expected, tolerance);
        let pairs = actual_gradients.iter().zip(&expected_gradients);
        for (i, (actual, expected)) in pairs.enumerate() {
            let what = format!("{dtype:?} gradient {i}");
            assert_close(&what, actual, expected, gradient_tolerance);
        }
        assert_close("plain value", &value(inputs, dtype, fused), &actual, 1e-6);
    }
}

/// Asserts that gradients equal central differences of the values, in f64.
pub fn assert_differentiates(inputs: &[Input], f: Function) {
    let (_, gradients) = gradients(inputs, DType::F64, f);
    let h = 1e-5;
    let mut gradients = gradients.into_iter();
    for (i, input) in inputs.iter().enumerate() {
        if !input.differentiated {
            continue;
        }
        let along = |entry: usize, step: f64| {
            let mut moved = inputs.to_vec();
            moved[i].values[entry] += step;
            let y = value(&moved, DType::F64, f);
            let weights = cotangent(y.len()).values;
            y.iter().zip(weights).map(|(y, w)| y * w).sum::<f64>()
        };
        let differences: Vec<_> = (0..input.values.len())
            .map(|entry| (along(entry, h) - along(entry, -h)) / (2.0 * h))
            .collect();
        let gradient = gradients.next().unwrap();
        assert_close(&format!("input {i}"), &gradient, &differences, 1e-7);
    }
}
