//! Half precision against f32 on inputs that both represent exactly: results differ by a few
//! roundings, and gradients to parameters are f32.

use std::cell::Cell;

use burn::tensor::{DType, Device, Gradients, Int, Tensor, TensorData};
use iiet_kernels::{
    DistillationMix, Visibility, attention, causal_attention, in_f32, layer_norm, linear,
    linear_cross_entropy, linear_distillation, rms_norm, rotate, swiglu, weighted_sum,
};

/// An operation's inputs in one dtype, and its results.
struct Run {
    dtype: DType,
    device: Device,
    /// The number of values drawn so far.
    drawn: Cell<u32>,
    /// The output, then the gradients.
    results: Vec<(DType, Vec<f32>)>,
}

impl Run {
    fn new(dtype: DType) -> Self {
        Self {
            dtype,
            device: Device::default(),
            drawn: Cell::new(0),
            results: Vec::new(),
        }
    }

    /// Values from -2 to 2 with 8 bits, which every float type represents exactly.
    fn draw<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        let from = self.drawn.get();
        let to = from + shape.iter().product::<usize>() as u32;
        self.drawn.set(to);
        let scrambled = (from..to).map(|i| i.wrapping_mul(2_654_435_761).rotate_left(13));
        let values: Vec<f32> = scrambled
            .map(|bits| (bits.wrapping_mul(2_246_822_519) >> 24) as f32 / 64.0 - 2.0)
            .collect();
        Tensor::from_data(TensorData::new::<f32, _>(values, shape), &self.device)
    }

    /// An activation or a matrix, in the run's dtype.
    fn half<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        let x = self.draw(shape).cast(self.dtype);
        x.autodiff().require_grad()
    }

    /// A coefficient, which is always f32.
    fn coefficient<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        let x = self.draw(shape).cast(DType::F32);
        x.autodiff().require_grad()
    }

    fn keep<const D: usize>(&mut self, x: Tensor<D>) {
        let values = in_f32(x.clone()).try_into_vec_as::<f32>().unwrap();
        self.results.push((x.dtype(), values));
    }

    /// Records the output, and sums it with weights that differ from entry to entry.
    fn backward<const D: usize>(&mut self, y: Tensor<D>) -> Gradients {
        self.keep(y.clone().inner());
        let weights = self.draw(y.dims()).cast(DType::F32);
        (in_f32(y) * Tensor::from_inner(weights)).sum().backward()
    }

    fn keep_gradient<const D: usize>(&mut self, x: &Tensor<D>, gradients: &Gradients) {
        self.keep(x.grad(gradients).expect("a gradient"));
    }
}

/// Runs an operation in f32 and in both half precisions. `f32s` are the indices of results that
/// stay f32.
fn check(operation: impl Fn(&mut Run), f32s: &[usize]) {
    let run = |dtype| {
        let mut run = Run::new(dtype);
        operation(&mut run);
        run.results
    };
    let expected = run(DType::F32);
    for (dtype, rounding) in [(DType::BF16, 2f32.powi(-9)), (DType::F16, 2f32.powi(-12))] {
        let found = run(dtype);
        assert_eq!(found.len(), expected.len());
        for (at, ((of, found), (_, expected))) in found.iter().zip(&expected).enumerate() {
            let wanted = if f32s.contains(&at) {
                DType::F32
            } else {
                dtype
            };
            assert_eq!(*of, wanted, "the type of result {at}");
            let largest = expected.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
            let apart = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
            let apart = apart.fold(0.0, f32::max);
            assert!(
                apart <= 8.0 * rounding * largest,
                "result {at} in {dtype:?}: differs by {apart}, largest {largest}"
            );
        }
    }
}

#[test]
fn projections_agree_with_f32() {
    // Few rows and many; widths of less and more than a cache line, which are not multiples of one.
    for (rows, d_in, d_out) in [
        ([2, 3], 24, 20),
        ([2, 40], 24, 20),
        ([1, 1], 100, 70),
        ([1, 2], 70, 100),
        ([2, 40], 100, 70),
    ] {
        let operation = |run: &mut Run| {
            let [a, b] = rows;
            let (x, w) = (run.half([a, b, d_in]), run.half([d_in, d_out]));
            let gradients = run.backward(linear(x.clone(), w.clone()));
            run.keep_gradient(&x, &gradients);
            run.keep_gradient(&w, &gradients);
        };
        check(operation, &[2]);
        // By a transposed matrix, such as a tied embedding.
        let operation = |run: &mut Run| {
            let [a, b] = rows;
            let (x, w) = (run.half([a * b, d_in]), run.half([d_out, d_in]));
            let gradients = run.backward(linear(x.clone(), w.clone().transpose()));
            run.keep_gradient(&x, &gradients);
            run.keep_gradient(&w, &gradients);
        };
        check(operation, &[2]);
    }
}

/// Matrices of more than a block, whose values are converted in parts.
#[test]
fn few_rows_times_large_matrices_agree_with_f32() {
    for rows in [1, 5] {
        for [d_in, d_out] in [[300, 700], [5000, 33]] {
            let product = |run: &mut Run| {
                let (x, w) = (run.half([rows, d_in]), run.half([d_in, d_out]));
                run.keep(linear(x.inner(), w.inner()));
            };
            check(product, &[]);
            let transposed = |run: &mut Run| {
                let (x, w) = (run.half([rows, d_in]), run.half([d_out, d_in]));
                run.keep(linear(x.inner(), w.inner().transpose()));
            };
            check(transposed, &[]);
        }
    }
}

#[test]
fn norms_agree_with_f32() {
    let rms = |run: &mut Run| {
        let (x, gamma) = (run.half([3, 5, 16]), run.coefficient([16]));
        let gradients = run.backward(rms_norm(x.clone(), gamma.clone(), 1e-5));
        run.keep_gradient(&x, &gradients);
        run.keep_gradient(&gamma, &gradients);
    };
    check(rms, &[2]);
    let layer = |run: &mut Run| {
        let x = run.half([3, 5, 16]);
        let (gamma, beta) = (run.coefficient([16]), run.coefficient([16]));
        let y = layer_norm(x.clone(), gamma.clone(), beta.clone(), 1e-5);
        let gradients = run.backward(y);
        run.keep_gradient(&x, &gradients);
        run.keep_gradient(&gamma, &gradients);
        run.keep_gradient(&beta, &gradients);
    };
    check(layer, &[2, 3]);
}

#[test]
fn gates_and_rotations_agree_with_f32() {
    let gate = |run: &mut Run| {
        let (gate, up) = (run.half([4, 9]), run.half([4, 9]));
        let gradients = run.backward(swiglu(gate.clone(), up.clone()));
        run.keep_gradient(&gate, &gradients);
        run.keep_gradient(&up, &gradients);
    };
    check(gate, &[]);
    let rotation = |run: &mut Run| {
        let x = run.half([2, 3, 5, 8]);
        let (cos, sin) = (run.coefficient([5, 4]), run.coefficient([5, 4]));
        let gradients = run.backward(rotate(x.clone(), cos.inner(), sin.inner()));
        run.keep_gradient(&x, &gradients);
    };
    check(rotation, &[]);
}

#[test]
fn sums_of_states_agree_with_f32() {
    for n in [1, 3, 20] {
        let operation = |run: &mut Run| {
            let states: Vec<Tensor<3>> = (0..n).map(|_| run.half([2, 5, 8])).collect();
            let weights = run.coefficient([n]);
            let gradients = run.backward(weighted_sum(states.clone(), weights.clone()));
            run.keep_gradient(&weights, &gradients);
            for state in &states {
                run.keep_gradient(state, &gradients);
            }
        };
        check(operation, &[1]);
    }
}

#[test]
fn attention_agrees_with_f32() {
    for (seq, width) in [(70, 8), (70, 36), (600, 32)] {
        let operation = |run: &mut Run| {
            let q = run.half([2, 4, seq, width]);
            let (k, v) = (run.half([2, 2, seq, width]), run.half([2, 2, seq, width]));
            let gradients = run.backward(causal_attention(q.clone(), k.clone(), v.clone(), 0.3));
            for x in [&q, &k, &v] {
                run.keep_gradient(x, &gradients);
            }
        };
        check(operation, &[]);
    }
    let crossed = |run: &mut Run| {
        let q = run.half([2, 4, 20, 24]);
        let (k, v) = (run.half([2, 2, 150, 24]), run.half([2, 2, 150, 24]));
        let visible = Visibility::keys([150, 70]);
        let y = attention(q.clone(), k.clone(), v.clone(), &visible, 0.3);
        let gradients = run.backward(y);
        for x in [&q, &k, &v] {
            run.keep_gradient(x, &gradients);
        }
    };
    check(crossed, &[]);
}

fn tokens(run: &Run, n: usize) -> (Tensor<1, Int>, Tensor<1>) {
    let targets: Vec<i64> = (0..n as i64).map(|t| 7 * t % 30).collect();
    let targets = TensorData::new::<i64, _>(targets, [n]);
    let weights: Vec<f32> = (0..n).map(|t| (t % 3) as f32).collect();
    let weights = TensorData::new::<f32, _>(weights, [n]);
    (
        Tensor::from_data(targets, &run.device),
        Tensor::from_data(weights, &run.device),
    )
}

#[test]
fn losses_agree_with_f32() {
    let cross_entropy = |run: &mut Run| {
        let (hidden, projection) = (run.half([50, 12]), run.half([12, 30]));
        let (targets, weights) = tokens(run, 50);
        let loss = linear_cross_entropy(hidden.clone(), projection.clone(), targets, weights);
        let gradients = run.backward(loss);
        run.keep_gradient(&hidden, &gradients);
        run.keep_gradient(&projection, &gradients);
    };
    check(cross_entropy, &[0, 2]);
    let distillation = |run: &mut Run| {
        let student = [run.half([50, 12]), run.half([12, 30])];
        let teacher = [run.half([50, 16]).inner(), run.half([16, 30]).inner()];
        let (targets, weights) = tokens(run, 50);
        let mix = DistillationMix {
            cross_entropy: 0.7,
            divergence: 1.2,
            temperature: 2.0,
        };
        let loss = linear_distillation(student.clone(), teacher, targets, weights, mix);
        run.keep(loss.parts);
        let gradients = run.backward(loss.loss);
        run.keep_gradient(&student[0], &gradients);
        run.keep_gradient(&student[1], &gradients);
    };
    check(distillation, &[0, 1, 3]);
}
