//! Cross-entropy with label smoothing.
//!
//! ```text
//! loss = (1 - s) (-log p(target)) + s mean_v (-log p(v))
//!      = -log p(target) + s (z_target - mean_v z_v)            z = E h, the logits
//!      = -log p(target) + s h . (E[target] - mean_v E[v])
//! ```
//!
//! Szegedy et al. (arXiv 1512.00567), section 7. The second form follows from `-log p(v) = lse(z) - z_v`, and
//! the third from the projection: so the smoothing costs an inner product a token, and the fused
//! cross-entropy, which holds no logits, serves it as it is.

use burn::tensor::{Int, Tensor};
use iiet_kernels::{embedding, in_f32, linear_cross_entropy};

use super::{EncoderDecoder, Source};

impl EncoderDecoder {
    /// `sum_t weights[t] * loss_t` in nats, with the configuration's label smoothing.
    ///
    /// # Shapes
    ///
    /// - source: `[batch, source]`
    /// - ids and targets: `[batch, target]`, below `vocab_size`
    /// - weights: `[batch, target]`, 0 for padding
    /// - output: `[1]`
    pub fn loss(
        &self,
        source: &Source,
        ids: Tensor<2, Int>,
        targets: Tensor<2, Int>,
        weights: Tensor<2>,
    ) -> Tensor<1> {
        let hidden = self.hidden(source, ids);
        let [batch, seq, d_model] = hidden.dims();
        let unsmoothed = linear_cross_entropy(
            hidden.clone().reshape([batch * seq, d_model]),
            self.projection(),
            targets.clone().reshape([batch * seq]),
            weights.clone().reshape([batch * seq]),
        );
        let smoothing = self.sizes().label_smoothing;
        if smoothing == 0.0 {
            return unsmoothed;
        }
        let weight = self.shared.weight.val();
        let mean = in_f32(weight.clone()).mean_dim(0).unsqueeze::<3>();
        let apart = in_f32(embedding(weight, targets)) - mean;
        let gap = (apart * in_f32(hidden)).sum_dim(2).reshape([batch, seq]);
        unsmoothed + (gap * weights).sum() * smoothing
    }
}
