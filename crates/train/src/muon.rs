//! Muon: momentum whose direction is orthogonalised, for the matrices of the blocks.
//!
//! ```text
//! M <- mu M + g              g the scaled gradient
//! O  = NS(g + mu M)          about U V^T, if U S V^T is the argument's singular value decomposition
//! W <- (1 - lr decay) W - lr 0.2 sqrt(max(rows, columns)) O
//!
//! NS: X <- X / |X|_F, then five times  A = X X^T,  X <- a X + (b A + c A A) X
//!     (a, b, c) = (3.4445, -4.7750, 2.0315)
//! ```
//!
//! Jordan et al., *Muon: An optimizer for hidden layers in neural networks* (2024). The factor before `O`
//! gives updates the root mean square of AdamW's, so that both take the same learning rate and weight
//! decay (Liu et al., *Muon is scalable for LLM training*, arXiv 2502.16982, equation 4). The
//! iteration is in f32: in half precision it saves little where the matrices are small.

use burn::tensor::Tensor;

/// The coefficients of the iteration: steepest at 0, at the price of singular values between 0.7 and
/// 1.2 instead of 1.
const COEFFICIENTS: [f64; 3] = [3.4445, -4.7750, 2.0315];
/// Iterations.
const ITERATIONS: usize = 5;
/// Keeps a gradient of zeros from being divided by zero.
const EPSILON: f64 = 1e-7;
/// The root mean square of AdamW's updates, about.
const ADAMW_RMS: f64 = 0.2;

/// The numbers of one step of Muon.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct MuonStep {
    /// Learning rate.
    pub(crate) lr: f64,
    /// `mu`, the decay of the momentum.
    pub(crate) momentum: f64,
    /// Decoupled weight decay.
    pub(crate) weight_decay: f64,
    /// What the gradient is multiplied by first.
    pub(crate) scale: f64,
}

/// Takes one step along a gradient; before the first, `momentum` is zero. Returns the parameter and the
/// momentum.
///
/// # Shapes
///
/// - all: `[rows, columns]`
pub(crate) fn muon(
    parameter: Tensor<2>,
    momentum: Tensor<2>,
    gradient: Tensor<2>,
    step: &MuonStep,
) -> (Tensor<2>, Tensor<2>) {
    let [rows, columns] = parameter.dims();
    let gradient = gradient * step.scale;
    let momentum = momentum * step.momentum + gradient.clone();
    let direction = orthogonalised(gradient + momentum.clone() * step.momentum);
    let rate = step.lr * ADAMW_RMS * (rows.max(columns) as f64).sqrt();
    let keep = 1.0 - step.lr * step.weight_decay;
    (parameter * keep - direction * rate, momentum)
}

/// `NS`.
fn orthogonalised(x: Tensor<2>) -> Tensor<2> {
    let [rows, columns] = x.dims();
    // The products with itself are cheaper on the shorter side.
    let is_tall = rows > columns;
    let x = if is_tall { x.transpose() } else { x };
    let norm = x.clone().powf_scalar(2.0).sum().sqrt() + EPSILON;
    let mut x = x / norm.unsqueeze();
    let [a, b, c] = COEFFICIENTS;
    for _ in 0..ITERATIONS {
        let square = x.clone().matmul(x.clone().transpose());
        let polynomial = square.clone() * b + square.clone().matmul(square) * c;
        x = x.clone() * a + polynomial.matmul(x);
    }
    if is_tall { x.transpose() } else { x }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    fn tensor<const R: usize, const C: usize>(values: [[f64; C]; R]) -> Tensor<2> {
        Tensor::from_data(TensorData::from(values), &Device::default())
    }

    fn close(found: Tensor<2>, expected: &[f64]) {
        let found = found.into_data().convert::<f64>();
        for (found, expected) in found.as_slice::<f64>().unwrap().iter().zip(expected) {
            assert!((found - expected).abs() < 2e-6, "{found} and {expected}");
        }
    }

    /// Two steps computed with PyTorch in f64, by the published code of Jordan et al. with the
    /// factor of Liu et al.
    #[test]
    fn two_steps_are_those_of_pytorch() {
        let step = MuonStep {
            lr: 0.1,
            momentum: 0.95,
            weight_decay: 0.1,
            scale: 0.5,
        };
        let start = tensor([[0.5, -0.25, 0.125], [1.0, 0.75, -0.5]]);
        let gradients = [
            tensor([[1.0, -2.0, 0.5], [0.25, 0.5, -1.5]]),
            tensor([[-0.5, 1.5, 2.0], [3.0, -0.25, 0.75]]),
        ];
        let parameter = [
            0.4763731029428822,
            -0.22612048418525657,
            0.09682563147038797,
            0.9332693139158881,
            0.7321233033364329,
            -0.46395129061037216,
        ];
        let momentum = [0.225, -0.2, 1.2375, 1.61875, 0.1125, -0.3375];
        let zeros = || Tensor::zeros([2, 3], &Device::default());
        let (mut w, mut m) = (start.clone(), zeros());
        // The transpose takes the transposed steps.
        let (mut tall, mut tall_m) = (start.transpose(), zeros().transpose());
        for gradient in gradients {
            (w, m) = muon(w, m, gradient.clone(), &step);
            (tall, tall_m) = muon(tall, tall_m, gradient.transpose(), &step);
        }
        close(w, &parameter);
        close(m, &momentum);
        close(tall.transpose(), &parameter);
        close(tall_m.transpose(), &momentum);
    }

    #[test]
    fn singular_values_come_close_to_one() {
        // Diagonal: the singular values are the entries.
        let x = orthogonalised(tensor([[3.0, 0.0, 0.0], [0.0, 0.2, 0.0]]));
        let x = x.into_data().convert::<f64>();
        let x = x.as_slice::<f64>().unwrap();
        for at in [0, 4] {
            assert!((0.6..1.3).contains(&x[at]), "{x:?}");
        }
        assert!([1, 2, 3, 5].iter().all(|at| x[*at].abs() < 1e-6), "{x:?}");
    }

    #[test]
    fn a_gradient_of_zeros_changes_nothing_but_the_decay() {
        let step = MuonStep {
            lr: 0.1,
            momentum: 0.95,
            weight_decay: 0.5,
            scale: 1.0,
        };
        let zeros = || Tensor::zeros([2, 2], &Device::default());
        let start = tensor([[1.0, 2.0], [3.0, 4.0]]);
        let (after, _) = muon(start, zeros(), zeros(), &step);
        close(after, &[0.95, 1.9, 2.85, 3.8]);
    }
}
