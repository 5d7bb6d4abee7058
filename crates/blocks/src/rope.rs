//! Where tokens stand: rotary position embedding.
//!
//! Su et al., *RoFormer* (arXiv 2104.09864), equation 34, in the half-split layout of LLaMA
//! checkpoints on the hub: coordinate i is paired with i + d/2. (Burn's `RotaryEncoding` pairs
//! 2i with 2i + 1, which is another model for the same weights.)

use burn::tensor::{Device, Tensor, TensorData};
use iiet_kernels::rotate;

/// The angles `position * theta^(-2i/d)` of a range of positions: what all layers of a pass must
/// know about where their tokens stand.
#[derive(Debug, Clone)]
pub struct Positions {
    /// `[seq, head_dim / 2]`
    cos: Tensor<2>,
    /// `[seq, head_dim / 2]`
    sin: Tensor<2>,
}

impl Positions {
    /// Positions `0..seq`.
    ///
    /// In f32 throughout, as the reference implementations do: at large positions a table of
    /// higher precision is measurably another one than the model was trained with.
    ///
    /// # Panics
    ///
    /// If `head_dim` is odd.
    pub fn new(head_dim: usize, theta: f64, seq: usize, device: &Device) -> Self {
        assert!(
            head_dim.is_multiple_of(2),
            "head_dim is {head_dim}; rotary embedding needs it even"
        );
        let half = head_dim / 2;
        let frequency: Vec<f32> = (0..half)
            .map(|i| 1.0 / (theta as f32).powf((2 * i) as f32 / head_dim as f32))
            .collect();
        let table = |f: fn(f32) -> f32| {
            let angles = (0..seq).flat_map(|t| frequency.iter().map(move |w| t as f32 * w));
            let values: Vec<f32> = angles.map(f).collect();
            Tensor::from_data(TensorData::new::<f32, _>(values, [seq, half]), device)
        };
        Self {
            cos: table(f32::cos),
            sin: table(f32::sin),
        }
    }

    /// Rotates every head's vectors by their positions.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, heads, seq, head_dim]`
    /// - output: the same
    pub fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        rotate(x, self.cos.clone(), self.sin.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Tolerance;

    #[test]
    fn rotates_pairs_half_a_head_apart() {
        let device = Device::default();
        // head_dim 4, theta 100: angles t and t/10 for the pairs (0, 2) and (1, 3).
        let positions = Positions::new(4, 100.0, 2, &device);
        let x = Tensor::<4>::from_data([[[[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]]]], &device);
        let (c, s) = (1.0f32.cos(), 1.0f32.sin());
        let (c1, s1) = (0.1f32.cos(), 0.1f32.sin());
        let expected = [
            [1.0, 2.0, 3.0, 4.0],
            [
                c - 3.0 * s,
                2.0 * c1 - 4.0 * s1,
                3.0 * c + s,
                4.0 * c1 + 2.0 * s1,
            ],
        ];
        positions
            .rotate(x)
            .into_data()
            .assert_approx_eq::<f32>(&TensorData::from([[expected]]), Tolerance::absolute(1e-6));
    }
}
