//! Rotary position embedding.
//!
//! Su et al., *RoFormer* (arXiv 2104.09864), equation 34, in the half-split layout of LLaMA
//! checkpoints on the Hugging Face Hub: coordinate i is paired with i + d/2. (Burn's
//! `RotaryEncoding` pairs 2i with 2i + 1, which gives other results for the same weights.)

use std::fmt;

use burn::tensor::{Device, Tensor, TensorData};
use iiet_kernels::rotate;
use serde::{Deserialize, Serialize};

/// The rotary frequencies `theta^(-2i/d)`, i = 0..d/2, of heads of width d.
#[derive(Debug, Clone, PartialEq)]
pub struct Frequencies(Vec<f32>);

/// LLaMA 3.1's scaling of the rotary frequencies for contexts longer than in initial training.
///
/// Frequencies whose wavelength exceeds `original_context / low_freq_factor` are divided by
/// `factor`, those below `original_context / high_freq_factor` stay, and those between are
/// interpolated (*The Llama 3 Herd of Models*, arXiv 2407.21783, section 3.4.2; the formula is that
/// of the published inference code).
///
/// Its serde form is the `rope_scaling` of `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename = "llama3", from = "Tagged")]
pub struct Llama3Scaling {
    /// The factor for long wavelengths.
    pub factor: f64,
    /// Number of rotations within the original context below which a frequency is low.
    pub low_freq_factor: f64,
    /// Number of rotations within the original context above which a frequency is high.
    pub high_freq_factor: f64,
    /// The context of the initial training, in tokens.
    #[serde(rename = "original_max_position_embeddings")]
    pub original_context: usize,
}

/// [`Llama3Scaling`] as it is read: another `rope_type` is refused.
#[derive(Deserialize)]
#[serde(tag = "rope_type", rename_all = "lowercase", deny_unknown_fields)]
enum Tagged {
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_max_position_embeddings: usize,
    },
}

impl From<Tagged> for Llama3Scaling {
    fn from(tagged: Tagged) -> Self {
        let Tagged::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings: original_context,
        } = tagged;
        Self {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_context,
        }
    }
}

impl fmt::Display for Llama3Scaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "llama3 with factor {}, low_freq_factor {}, high_freq_factor {}, original_max_position_embeddings {}",
            self.factor, self.low_freq_factor, self.high_freq_factor, self.original_context
        )
    }
}

impl Frequencies {
    /// The frequencies for a base.
    ///
    /// In f32 throughout, as in the reference implementations: at large positions a table computed
    /// in higher precision differs measurably from the one that the model was trained with.
    ///
    /// # Panics
    ///
    /// If `head_dim` is odd.
    pub fn new(head_dim: usize, theta: f64) -> Self {
        assert!(
            head_dim.is_multiple_of(2),
            "head_dim is {head_dim}; rotary embedding requires an even width"
        );
        let frequency = |i: usize| 1.0 / (theta as f32).powf((2 * i) as f32 / head_dim as f32);
        Self((0..head_dim / 2).map(frequency).collect())
    }

    /// The same frequencies, scaled.
    pub fn scaled(self, scaling: &Llama3Scaling) -> Self {
        let Llama3Scaling {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_context,
        } = *scaling;
        let (factor, context) = (factor as f32, original_context as f32);
        let (low, high) = (low_freq_factor as f32, high_freq_factor as f32);
        let stretch = |w: f32| {
            let wavelength = 2.0 * std::f32::consts::PI / w;
            if wavelength < context / high {
                w
            } else if wavelength > context / low {
                w / factor
            } else {
                let smooth = (context / wavelength - low) / (high - low);
                (1.0 - smooth) * w / factor + smooth * w
            }
        };
        Self(self.0.into_iter().map(stretch).collect())
    }
}

/// The angles `position * frequency` of some tokens, shared by all layers of a pass.
#[derive(Debug, Clone)]
pub struct Positions {
    /// `[seq, head_dim / 2]`
    cos: Tensor<2>,
    /// `[seq, head_dim / 2]`
    sin: Tensor<2>,
}

impl Positions {
    /// Positions `0..seq`, with the frequencies for the base `theta`.
    ///
    /// # Panics
    ///
    /// If `head_dim` is odd.
    pub fn new(head_dim: usize, theta: f64, seq: usize, device: &Device) -> Self {
        Self::at(&Frequencies::new(head_dim, theta), 0..seq, device)
    }

    /// Tokens at arbitrary positions, in their order.
    pub fn at(
        frequencies: &Frequencies,
        positions: impl Iterator<Item = usize>,
        device: &Device,
    ) -> Self {
        let half = frequencies.0.len();
        let angles: Vec<f32> = positions
            .flat_map(|t| frequencies.0.iter().map(move |w| t as f32 * w))
            .collect();
        let table = |f: fn(f32) -> f32| {
            let values: Vec<f32> = angles.iter().map(|angle| f(*angle)).collect();
            let shape = [values.len() / half, half];
            Tensor::from_data(TensorData::new::<f32, _>(values, shape), device)
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
