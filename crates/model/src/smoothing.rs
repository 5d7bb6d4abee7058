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
use iiet_kernels::{embedding, in_f32, linear};

use crate::{CrossEntropy, Objective};

/// `sum_t weights[t] * loss_t`, in nats.
#[derive(Debug, Clone)]
pub struct SmoothedCrossEntropy {
    /// The loss without smoothing.
    pub plain: CrossEntropy,
    /// s, the share of the loss that is the mean over the vocabulary: from 0, below 1.
    pub smoothing: f64,
    /// The value of [`plain`](Self::plain), `[1]`, once the loss has been computed.
    pub cross_entropy: Option<Tensor<1>>,
}

impl SmoothedCrossEntropy {
    /// The loss of these targets.
    ///
    /// # Shapes
    ///
    /// - targets: `[batch, seq]`, ids below `vocab_size`
    /// - weights: `[batch, seq]`, 0 for padding
    pub fn new(targets: Tensor<2, Int>, weights: Tensor<2>, smoothing: f64) -> Self {
        Self {
            plain: CrossEntropy { targets, weights },
            smoothing,
            cross_entropy: None,
        }
    }
}

impl Objective for SmoothedCrossEntropy {
    fn of_hidden(&mut self, hidden: Tensor<3>, projection: Tensor<2>) -> Tensor<1> {
        let plain = self.plain.of_hidden(hidden.clone(), projection.clone());
        self.cross_entropy = Some(plain.clone().inner());
        if self.smoothing == 0.0 {
            return plain;
        }
        let [batch, seq, _] = hidden.dims();
        let CrossEntropy { targets, weights } = self.plain.clone();
        let rows = projection.transpose();
        let [vocab, _] = rows.dims();
        // As a product, whose gradient to half-precision rows is f32 like that of the other terms.
        let ones = Tensor::ones([1, 1, vocab], (&rows.device(), rows.dtype()));
        let mean = in_f32(linear(ones, rows.clone())) / vocab as f64;
        let apart = in_f32(embedding(rows, targets)) - mean;
        let gap = (apart * in_f32(hidden)).sum_dim(2).reshape([batch, seq]);
        plain + (gap * weights).sum() * self.smoothing
    }
}
