//! LLaMA 3.1's scaling of the rotary frequencies as the tensor `rope_freqs.weight`.
//!
//! llama.cpp divides the frequency of pair i by element i. The factor is 1 for wavelengths below
//! `original_context / high_freq_factor`, `factor` above `original_context / low_freq_factor`, and between them
//! the inverse of a mean of 1 and `1 / factor`. Source: llama.cpp's converter, and *The Llama 3 Herd of Models*,
//! arXiv 2407.21783, section 3.4.2.

use std::f32::consts::PI;

use super::{Llama3Scaling, LlamaSizes, ROPE_FACTORS};
use crate::GgufError;

/// The elements of the tensor, `head_dim / 2`.
pub fn rope_factors(sizes: &LlamaSizes, scaling: &Llama3Scaling) -> Vec<f32> {
    let (theta, head_dim) = (sizes.rope_theta as f32, sizes.head_dim);
    let (factor, context) = (scaling.factor as f32, scaling.original_context as f32);
    let (low, high) = (
        scaling.low_freq_factor as f32,
        scaling.high_freq_factor as f32,
    );
    let factor = |i: usize| {
        let frequency = 1.0 / theta.powf((2 * i) as f32 / head_dim as f32);
        let wavelength = 2.0 * PI / frequency;
        if wavelength < context / high {
            1.0
        } else if wavelength > context / low {
            factor
        } else {
            let smooth = (context / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    (0..head_dim / 2).map(factor).collect()
}

/// The scaling that a file of another program was written with, of which only the factors are in the file.
///
/// The largest element is the factor, and the other numbers are those of all published models, 1 and 4. The context
/// is 8192 tokens there; other powers of two are tried after it. Where several give these factors, they are the
/// same function.
///
/// # Errors
///
/// [`GgufError::Metadata`] if none of these numbers give the factors.
pub fn recovered_scaling(sizes: &LlamaSizes, factors: &[f32]) -> Result<Llama3Scaling, GgufError> {
    // Other programs may compute in another order.
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * b.abs();
    let factor = factors.iter().copied().fold(1.0, f32::max);
    let contexts = [8192].into_iter().chain((5..=20).map(|power| 1 << power));
    let scalings = contexts.map(|original_context| Llama3Scaling {
        factor: f64::from(factor),
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context,
    });
    let mut matching = scalings.filter(|scaling| {
        let expected = rope_factors(sizes, scaling);
        expected.len() == factors.len() && factors.iter().zip(&expected).all(near)
    });
    matching
        .next()
        .filter(|_| factor.is_finite())
        .ok_or_else(|| {
            let found = format!("{} factors of another scaling", factors.len());
            let allowed = format!(
                "allowed: the {} of LLaMA 3.1's, with low_freq_factor 1, high_freq_factor 4 and \
             original_max_position_embeddings a power of two",
                sizes.head_dim / 2
            );
            GgufError::metadata(ROPE_FACTORS, found, allowed)
        })
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::sizes;
    use super::*;

    #[test]
    fn factors_are_those_of_the_published_formula() {
        let sizes = LlamaSizes {
            rope_theta: 10_000.0,
            ..sizes()
        };
        let scaling = sizes.rope_scaling.unwrap();
        // Wavelengths 2 pi 10^i = 6.28, 62.8, 628, 6283; low above 32, high below 8.
        assert_eq!(rope_factors(&sizes, &scaling), [1.0, 8.0, 8.0, 8.0]);
        let wide = Llama3Scaling {
            original_context: 125,
            ..scaling
        };
        // Between 31.25 and 125: smooth = (125 / 62.83 - 1) / 3 = 0.32981, and 1 / (0.67019 / 8 + 0.32981).
        let factors = rope_factors(&sizes, &wide);
        assert!((factors[1] - 2.41794).abs() < 1e-4, "{factors:?}");
    }

    #[test]
    fn published_scalings_are_recovered() {
        let sizes = LlamaSizes {
            head_dim: 64,
            ..sizes()
        };
        let scaling = Llama3Scaling {
            factor: 32.0,
            original_context: 8192,
            ..sizes.rope_scaling.unwrap()
        };
        let factors = rope_factors(&sizes, &scaling);
        assert_eq!(recovered_scaling(&sizes, &factors).unwrap(), scaling);
        let short = Llama3Scaling {
            original_context: 128,
            ..scaling
        };
        let factors_of_short = rope_factors(&sizes, &short);
        assert_eq!(recovered_scaling(&sizes, &factors_of_short).unwrap(), short);
        for wrong in [
            &factors[1..],
            &[f32::NAN; 32],
            &[f32::INFINITY; 32],
            &[3.0; 32],
        ] {
            assert!(recovered_scaling(&sizes, wrong).is_err());
        }
    }
}
