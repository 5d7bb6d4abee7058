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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use burn::tensor::{DType, Device};

    use super::*;

    const RATES: DropoutRates = DropoutRates {
        residual: 0.1,
        attention: 0.2,
        activation: 0.3,
    };

    const PLACES: [Place; Place::NUMBER] = [
        Place::Embedding,
        Place::Attention,
        Place::AttentionWeights,
        Place::CrossAttention,
        Place::CrossAttentionWeights,
        Place::FeedForward,
        Place::Activation,
    ];

    fn values(mask: &DropoutMask) -> Vec<u32> {
        let values = mask.tensor([4, 300], &Device::default());
        let values = values.into_data().try_into_vec_as::<f32>().unwrap();
        values.into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn steps_micro_batches_layers_places_and_sides_have_masks_of_their_own() {
        let of = |seed, step, micro_batch| {
            let rates = DropoutRates {
                residual: 0.5,
                attention: 0.5,
                activation: 0.5,
            };
            Dropout::new(rates, seed, step, micro_batch).unwrap()
        };
        let mut passes = vec![of(1, 0, 0).of_decoder()];
        for x in [0, 1, 1 << 32] {
            passes.extend([of(2, x, 7), of(2, 7, x), of(x, 2, 3)]);
        }
        let mut seen = HashSet::new();
        let mut count = 0;
        for dropout in passes {
            for layer in Layer::all(3) {
                for place in PLACES {
                    let mask = dropout.mask(layer, place).unwrap();
                    assert_eq!(values(&mask), values(&mask));
                    seen.insert(values(&mask));
                    count += 1;
                }
            }
        }
        assert_eq!((count, seen.len()), (210, 210));
    }

    #[test]
    fn each_place_has_the_rate_of_its_kind() {
        let dropout = Dropout::new(RATES, 1, 2, 3).unwrap();
        let residual = |place| {
            !matches!(
                place,
                Place::AttentionWeights | Place::CrossAttentionWeights | Place::Activation
            )
        };
        for place in PLACES {
            let rate = match place {
                Place::Activation => 0.3,
                place if residual(place) => 0.1,
                _ => 0.2,
            };
            let mask = dropout.mask(Layer::at(4), place).unwrap();
            let n = 100_000;
            let mask = mask.tensor([n], &Device::default());
            let dropped = mask.equal_elem(0.0).int().sum().into_scalar::<i64>();
            // Five standard deviations.
            let bound = 5.0 * (n as f64 * rate * (1.0 - rate)).sqrt();
            let apart = (dropped as f64 - rate * n as f64).abs();
            assert!(apart < bound, "{place:?}: {dropped} of {n}");
        }
    }

    #[test]
    fn the_mean_of_a_mask_is_one() {
        let dropout = Dropout::new(RATES, 1, 2, 3).unwrap();
        let y = Tensor::<3>::ones([10, 100, 100], &Device::default());
        let mean = dropout.embedding(y).mean().into_scalar::<f64>();
        // Five standard deviations sqrt(p / (1 - p) / n).
        let bound = 5.0 * (0.1f64 / 0.9 / 1e5).sqrt();
        assert!((mean - 1.0).abs() < bound, "{mean}");
    }

    #[test]
    fn one_tensor_serves_recorded_and_plain_evaluations() {
        let dropout = ContextDropout::Pass(Dropout::new(RATES, 1, 2, 3).unwrap());
        for dtype in [DType::F32, DType::BF16] {
            let masks = dropout.at_layer(Layer::at(1)).unwrap();
            assert!(masks.at_layer(Layer::at(1)).is_none());
            let x = Tensor::<3>::ones([2, 7, 30], (&Device::default(), dtype));
            let plain = masks.apply(Place::FeedForward, x.clone());
            let recorded = masks.apply(Place::FeedForward, x.clone().autodiff());
            assert!(recorded.is_autodiff() && recorded.dtype() == dtype);
            recorded
                .inner()
                .into_data()
                .assert_eq(&plain.clone().into_data(), true);
            // In the other order.
            let masks = dropout.at_layer(Layer::at(1)).unwrap();
            let recorded = masks.apply(Place::FeedForward, x.clone().autodiff());
            let again = masks.apply(Place::FeedForward, x);
            assert!(recorded.is_autodiff() && !again.is_autodiff());
            again.into_data().assert_eq(&plain.into_data(), true);
        }
    }

    #[test]
    fn a_rate_of_zero_has_no_mask() {
        let rates = DropoutRates {
            attention: 0.5,
            ..DropoutRates::default()
        };
        assert!(!rates.are_zero() && DropoutRates::default().are_zero());
        let dropout = Dropout::new(rates, 1, 2, 3).unwrap();
        for place in PLACES {
            let weights = matches!(
                place,
                Place::AttentionWeights | Place::CrossAttentionWeights
            );
            assert_eq!(dropout.mask(Layer::FIRST, place).is_some(), weights);
        }
    }

    #[test]
    fn rates_out_of_range_name_the_key() {
        for (rates, expected) in [
            (
                DropoutRates {
                    residual: 1.0,
                    ..RATES
                },
                "dropout.residual is 1; allowed: at least 0 and below 1",
            ),
            (
                DropoutRates {
                    attention: -0.1,
                    ..RATES
                },
                "dropout.attention is -0.1; allowed: at least 0 and below 1",
            ),
            (
                DropoutRates {
                    activation: f64::NAN,
                    ..RATES
                },
                "dropout.activation is NaN; allowed: at least 0 and below 1",
            ),
        ] {
            let error = Dropout::new(rates, 0, 0, 0).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    #[should_panic = "at_layer has the masks of a layer"]
    fn a_pass_without_a_layer_is_not_applied() {
        let dropout = ContextDropout::Pass(Dropout::new(RATES, 1, 2, 3).unwrap());
        let x = Tensor::<3>::ones([1, 1, 4], &Device::default());
        dropout.apply(Place::FeedForward, x);
    }
}
