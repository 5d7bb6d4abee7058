//! Block influence: how much a layer changes its input.
//!
//! Men et al., "ShortGPT: Layers in Large Language Models are More Redundant Than You Expect",
//! <https://arxiv.org/abs/2403.03853>, equation 1:
//!
//! ```text
//! BI = 1 - E[ x . y / (|x| |y|) ]
//! ```
//!
//! with a layer's input x and output y, averaged over tokens. Layers of low influence are removed first.

use crate::CompressError;
use crate::error::{check_finite, check_length};

/// The influence of a layer, added up over batches of states.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BlockInfluence {
    cosines: f64,
    tokens: usize,
}

impl BlockInfluence {
    /// No states yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the states before and after the layer, both `[tokens, d_model]`. A state of length zero has cosine 1 with
    /// another one of length zero, and 0 with all others.
    ///
    /// # Errors
    ///
    /// For different lengths, for states that are not whole tokens, and for non-finite values.
    pub fn add(
        &mut self,
        input: &[f32],
        output: &[f32],
        d_model: usize,
    ) -> Result<(), CompressError> {
        let tokens = input.len() / d_model.max(1);
        check_length("input states", input.len(), tokens * d_model)?;
        check_length("output states", output.len(), input.len())?;
        check_finite("input state", input)?;
        check_finite("output state", output)?;
        for (x, y) in input
            .chunks_exact(d_model.max(1))
            .zip(output.chunks_exact(d_model.max(1)))
        {
            self.cosines += cosine(x, y);
        }
        self.tokens += tokens;
        Ok(())
    }

    /// Tokens added.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The influence, 0 to 2; none before tokens were added.
    pub fn value(&self) -> Option<f64> {
        (self.tokens > 0).then(|| 1.0 - self.cosines / self.tokens as f64)
    }
}

fn cosine(x: &[f32], y: &[f32]) -> f64 {
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (&x, &y) in x.iter().zip(y) {
        let (x, y) = (f64::from(x), f64::from(y));
        xx += x * x;
        yy += y * y;
        xy += x * y;
    }
    match (xx > 0.0, yy > 0.0) {
        (true, true) => xy / (xx.sqrt() * yy.sqrt()),
        (false, false) => 1.0,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_influence_is_one_minus_the_mean_cosine() {
        let mut influence = BlockInfluence::new();
        assert_eq!(influence.value(), None);
        // Cosines 1, 0, -1 and 0.6.
        influence
            .add(&[1.0, 2.0, 1.0, 0.0], &[2.0, 4.0, 0.0, 3.0], 2)
            .unwrap();
        influence
            .add(&[1.0, -1.0, 1.0, 0.0], &[-1.0, 1.0, 3.0, 4.0], 2)
            .unwrap();
        let value = influence.value().unwrap();
        assert!((value - (1.0 - 0.6 / 4.0)).abs() < 1e-15);
        assert_eq!(influence.tokens(), 4);
    }

    #[test]
    fn states_of_length_zero_have_a_defined_influence() {
        let mut influence = BlockInfluence::new();
        influence
            .add(&[0.0, 0.0, 0.0, 0.0], &[0.0, 0.0, 1.0, 0.0], 2)
            .unwrap();
        assert_eq!(influence.value(), Some(0.5));
    }

    #[test]
    fn states_that_do_not_fit_are_rejected() {
        let mut influence = BlockInfluence::new();
        assert!(influence.add(&[1.0; 3], &[1.0; 3], 2).is_err());
        assert!(influence.add(&[1.0; 4], &[1.0; 2], 2).is_err());
        assert!(influence.add(&[f32::NAN; 2], &[1.0; 2], 2).is_err());
        assert!(influence.add(&[1.0; 2], &[1.0; 2], 0).is_err());
        assert_eq!(influence.value(), None);
    }
}
