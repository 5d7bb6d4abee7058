//! The training objective.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};

/// `-log p(target)` of every token, in nats.
///
/// # Shapes
///
/// - logits: `[batch, seq, vocab]`
/// - targets: `[batch, seq]`, ids below `vocab`
/// - output: `[batch, seq]`
pub fn token_losses(logits: Tensor<3>, targets: Tensor<2, Int>) -> Tensor<2> {
    let targets = targets.unsqueeze_dim::<3>(2);
    log_softmax(logits, 2)
        .gather(2, targets)
        .squeeze_dim::<2>(2)
        .neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn by_hand() {
        let device = Device::default();
        // Softmax of (0, ln 3) is (1/4, 3/4).
        let logits = Tensor::<3>::from_data([[[0.0, 3.0f32.ln()], [0.0, 3.0f32.ln()]]], &device);
        let targets = Tensor::<2, Int>::from_data([[0, 1]], &device);
        let losses = token_losses(logits, targets)
            .try_into_vec_as::<f32>()
            .unwrap();
        assert!((losses[0] - 4.0f32.ln()).abs() < 1e-6);
        assert!((losses[1] - (4.0f32 / 3.0).ln()).abs() < 1e-6);
    }
}
