//! Dropout of a pass: which elements of a layer are zero, the same in all evaluations of the layer.
//!
//! ```text
//! y_0  = m_0 E[ids]                                             residual
//! u    = y + m_1 W_o (m_2 softmax(q k^T / sqrt(head_dim)) v)    m_1 residual, m_2 attention
//! G(y) = u + m_3 W_down (m_4 (silu(W_gate x) * W_up x))         m_3 residual, m_4 activation
//! ```
//!
//! Vaswani et al., *Attention Is All You Need* (arXiv 1706.03762), section 5.4, and the rates that fairseq calls
//! `dropout`, `attention-dropout` and `activation-dropout`. Masks are 0 with the rate p, else `1 / (1 - p)`.
//!
//! A solver's evaluations of a layer must see one vector field. If each drew a mask of its own, the corrections
//! would iterate another map than the guess, and a fixed point would not exist. So a mask is a function of the
//! seed, the step, the micro-batch, the layer, its place in the layer and the element's index alone, as in Gal
//! and Ghahramani, *A Theoretically Grounded Application of Dropout in Recurrent Neural Networks* (arXiv
//! 1512.05287), which repeats a mask in all steps of a sequence. It follows that layers computed again, resumed
//! runs, and any number of threads or devices have the same masks.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, OnceLock};

use burn::tensor::Tensor;
use iiet_kernels::DropoutMask;
use iiet_ode::Layer;
use serde::{Deserialize, Serialize};

use crate::BlockError;

/// The probabilities with which elements are dropped, at least 0 and below 1.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DropoutRates {
    /// Of the output of attention, of cross-attention and of the feed-forward layer before they are added to the
    /// residual stream, and of the embedding.
    pub residual: f64,
    /// Of the weights of attention, after the softmax.
    pub attention: f64,
    /// Of the feed-forward layer's hidden activations.
    pub activation: f64,
}

impl DropoutRates {
    /// Whether nothing is dropped.
    pub fn are_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Checks the range of each rate.
    ///
    /// # Errors
    ///
    /// [`BlockError::Value`] with the rate's key.
    pub fn validate(&self) -> Result<(), BlockError> {
        for (key, rate) in [
            ("dropout.residual", self.residual),
            ("dropout.attention", self.attention),
            ("dropout.activation", self.activation),
        ] {
            if !(0.0..1.0).contains(&rate) {
                return Err(BlockError::Value {
                    key,
                    found: rate.to_string(),
                    allowed: "allowed: at least 0 and below 1".into(),
                });
            }
        }
        Ok(())
    }
}

impl fmt::Display for DropoutRates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            residual,
            attention,
            activation,
        } = self;
        write!(
            f,
            "residual {residual}, attention {attention}, activation {activation}"
        )
    }
}

/// Where a mask is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `y_0`, before the first layer.
    Embedding,
    /// The output of attention.
    Attention,
    /// The weights of attention, after the softmax.
    AttentionWeights,
    /// The output of cross-attention.
    CrossAttention,
    /// The weights of cross-attention.
    CrossAttentionWeights,
    /// The output of the feed-forward layer.
    FeedForward,
    /// The hidden activations of the feed-forward layer.
    Activation,
}

impl Place {
    const NUMBER: usize = 7;
}

/// The dropout of a pass over one micro-batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    rates: DropoutRates,
    key: [u32; 2],
    stream: u32,
    of_decoder: bool,
}

impl Dropout {
    /// Dropout for a micro-batch of a training step. Each triple of numbers has masks of its own; the
    /// micro-batch is counted over all devices of the step.
    ///
    /// # Errors
    ///
    /// [`BlockError::Value`] if a rate is out of range.
    pub fn new(
        rates: DropoutRates,
        seed: u64,
        step: u64,
        micro_batch: u64,
    ) -> Result<Self, BlockError> {
        rates.validate()?;
        let halves = |x: u64| [x as u32, (x >> 32) as u32];
        let ([s0, s1], [m0, m1]) = (halves(step), halves(micro_batch));
        let [k0, k1, stream, _] = DropoutMask::words(halves(seed), [s0, s1, m0, m1]);
        Ok(Self {
            rates,
            key: [k0, k1],
            stream,
            of_decoder: false,
        })
    }

    /// The same dropout for the decoder of an encoder-decoder, whose layers have masks of their own.
    pub fn of_decoder(self) -> Self {
        Self {
            of_decoder: true,
            ..self
        }
    }

    /// The rates.
    pub fn rates(&self) -> &DropoutRates {
        &self.rates
    }

    /// The mask at a place of a layer; `None` if its rate is 0.
    pub fn mask(&self, layer: Layer, place: Place) -> Option<DropoutMask> {
        let rate = match place {
            Place::Embedding | Place::Attention | Place::CrossAttention | Place::FeedForward => {
                self.rates.residual
            }
            Place::AttentionWeights | Place::CrossAttentionWeights => self.rates.attention,
            Place::Activation => self.rates.activation,
        };
        // The layer below bit 28, the place in three bits, the side of an encoder-decoder.
        let layer = layer.index() as u32;
        let at = u32::from(self.of_decoder) << 31 | (place as u32) << 28 | layer;
        (rate > 0.0).then(|| DropoutMask::new(self.key, [self.stream, at], rate))
    }

    /// `y_0` after dropout.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq, d_model]`
    /// - output: the same
    pub fn embedding(&self, y: Tensor<3>) -> Tensor<3> {
        match self.mask(Layer::FIRST, Place::Embedding) {
            None => y,
            Some(mask) => y.clone() * mask.tensor(y.dims(), (&y.device(), y.dtype())),
        }
    }
}

/// The dropout that a block's context carries: that of a pass, and in a layer's context its masks.
#[derive(Debug, Clone, Default)]
pub enum ContextDropout {
    /// Nothing is dropped.
    #[default]
    Off,
    /// In the context of a pass.
    Pass(Dropout),
    /// In the context of a layer, which its evaluations share.
    Layer(Arc<LayerMasks>),
}

impl ContextDropout {
    /// What the evaluations of a layer share, for [`Block::at_layer`](crate::Block::at_layer): `None` where
    /// nothing is dropped, or where this is a layer's already.
    pub fn at_layer(&self, layer: Layer) -> Option<Self> {
        let Self::Pass(dropout) = self else {
            return None;
        };
        Some(Self::Layer(Arc::new(LayerMasks {
            dropout: *dropout,
            layer,
            tensors: Default::default(),
        })))
    }

    /// `m x`, with the mask of this place. The same tensor is multiplied in all evaluations of a layer, in the
    /// dtype of the first; without dropout x is returned as it is.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq, width]`, the same in all evaluations
    /// - output: the same
    ///
    /// # Panics
    ///
    /// If this is the dropout of a pass.
    pub fn apply(&self, place: Place, x: Tensor<3>) -> Tensor<3> {
        match self.of_layer() {
            None => x,
            Some(masks) => masks.apply(place, x),
        }
    }

    /// The mask of the weights of attention, if any are dropped.
    ///
    /// # Panics
    ///
    /// If this is the dropout of a pass.
    pub fn mask(&self, place: Place) -> Option<DropoutMask> {
        let LayerMasks { dropout, layer, .. } = self.of_layer()?;
        dropout.mask(*layer, place)
    }

    fn of_layer(&self) -> Option<&LayerMasks> {
        match self {
            Self::Off => None,
            Self::Pass(_) => panic!("the dropout of a pass: at_layer has the masks of a layer"),
            Self::Layer(masks) => Some(masks),
        }
    }
}

/// The masks of one layer, each computed when it is first applied.
#[derive(Debug)]
pub struct LayerMasks {
    dropout: Dropout,
    layer: Layer,
    tensors: [OnceLock<Tensor<3>>; Place::NUMBER],
}

impl LayerMasks {
    fn apply(&self, place: Place, x: Tensor<3>) -> Tensor<3> {
        let Some(mask) = self.dropout.mask(self.layer, place) else {
            return x;
        };
        let tensor = self.tensors[place as usize]
            .get_or_init(|| mask.tensor(x.dims(), (&x.device(), x.dtype())))
            .clone();
        // Some evaluations of a layer are recorded for a backward pass and some are not.
        match x.is_autodiff() {
            true => x * tensor.autodiff(),
            false => x * tensor.inner(),
        }
    }
}
