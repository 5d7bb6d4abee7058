//! Where tokens stand: rotary position embedding and the causal mask.
//!
//! Su et al., *RoFormer* (arXiv 2104.09864), equation 34, in the half-split layout of LLaMA
//! checkpoints on the hub: coordinate i is paired with i + d/2. (Burn's `RotaryEncoding` pairs
//! 2i with 2i + 1, which is another model for the same weights.)

use burn::tensor::{Device, Tensor, TensorData};

/// Cosines and sines of `position * theta^(-2i/d)` for a range of positions.
#[derive(Debug, Clone)]
pub struct Rope {
    /// `[1, 1, seq, head_dim]`, both halves equal.
    cos: Tensor<4>,
    /// `[1, 1, seq, head_dim]`, both halves equal.
    sin: Tensor<4>,
}

impl Rope {
    /// Tables for positions `0..seq`.
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
            let values: Vec<f32> = (0..seq)
                .flat_map(|t| (0..head_dim).map(move |i| (t, i % half)))
                .map(|(t, i)| f(t as f32 * frequency[i]))
                .collect();
            Tensor::from_data(
                TensorData::new::<f32, _>(values, [1, 1, seq, head_dim]),
                device,
            )
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
        let half = x.dims()[3] / 2;
        let (a, b) = (
            x.clone().narrow(3, 0, half),
            x.clone().narrow(3, half, half),
        );
        let quarter_turn = Tensor::cat(vec![b.neg(), a], 3);
        x * self.cos.clone() + quarter_turn * self.sin.clone()
    }
}

/// What a block must know about the positions of its input: shared by all layers of a pass.
#[derive(Debug, Clone)]
pub struct Positions {
    /// The rotation of queries and keys.
    pub rope: Rope,
    /// `[1, 1, seq, seq]`, added to the scores: 0 up to the diagonal, -inf above it.
    pub mask: Tensor<4>,
}

impl Positions {
    /// Positions `0..seq` of a causal sequence.
    pub fn new(head_dim: usize, theta: f64, seq: usize, device: &Device) -> Self {
        let mut mask = vec![f32::NEG_INFINITY; seq * seq];
        for (t, row) in mask.chunks_exact_mut(seq.max(1)).enumerate() {
            row[..=t].fill(0.0);
        }
        Self {
            rope: Rope::new(head_dim, theta, seq, device),
            mask: Tensor::from_data(TensorData::new::<f32, _>(mask, [1, 1, seq, seq]), device),
        }
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
        let rope = Rope::new(4, 100.0, 2, &device);
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
        rope.rotate(x)
            .into_data()
            .assert_approx_eq::<f32>(&TensorData::from([[expected]]), Tolerance::absolute(1e-6));
    }

    #[test]
    fn the_mask_hides_the_future() {
        let positions = Positions::new(2, 1e4, 3, &Device::default());
        let hidden = f32::NEG_INFINITY;
        let expected = [[[[0.0, hidden, hidden], [0.0, 0.0, hidden], [0.0, 0.0, 0.0]]]];
        positions
            .mask
            .into_data()
            .assert_eq(&TensorData::from(expected), true);
    }
}
