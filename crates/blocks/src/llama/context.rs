//! The positions of the tokens of a pass, what they may attend to, and what is dropped.

use burn::tensor::{Device, Tensor};
use iiet_kernels::{CacheRow, Visibility};
use iiet_ode::Layer;

use super::{Frequencies, Positions};
use crate::{BlockError, ContextDropout, Dropout, Tokens};

/// What all LLaMA layers of a pass share.
#[derive(Debug, Clone)]
pub enum LlamaContext {
    /// Texts from their beginning.
    Whole {
        /// The rotation of each column.
        positions: Positions,
        /// Which tokens a token sees.
        visible: Visibility,
        /// What is dropped, in training.
        dropout: ContextDropout,
    },
    /// New tokens of texts whose earlier keys and values are cached.
    New {
        /// The rotation of each column of each row, row by row.
        positions: Positions,
        /// The tokens of each row.
        rows: Vec<CacheRow>,
        /// The maximum number of tokens that any row will have.
        limit: usize,
    },
}

impl LlamaContext {
    /// The context of a pass. A row's new tokens have the positions `cached..cached + count`.
    pub fn new(frequencies: &Frequencies, tokens: Tokens, device: &Device) -> Self {
        match tokens {
            Tokens::Whole { seq } => Self::Whole {
                positions: Positions::at(frequencies, 0..seq, device),
                visible: Visibility::Causal,
                dropout: ContextDropout::Off,
            },
            Tokens::Source { lengths, seq } => Self::Whole {
                positions: Positions::at(frequencies, 0..seq, device),
                visible: Visibility::keys(lengths),
                dropout: ContextDropout::Off,
            },
            Tokens::New { rows, seq, limit } => {
                let at = rows.iter().flat_map(|row| {
                    // Padding has no position; any angle is valid.
                    (0..seq).map(|column| row.cached + column.saturating_sub(row.from))
                });
                Self::New {
                    positions: Positions::at(frequencies, at, device),
                    rows,
                    limit,
                }
            }
        }
    }

    /// The context of a pass with dropout.
    ///
    /// # Errors
    ///
    /// [`BlockError::Unsupported`] for new tokens of cached texts.
    pub fn with_dropout(self, dropout: &Dropout) -> Result<Self, BlockError> {
        match self {
            Self::Whole {
                positions, visible, ..
            } => Ok(Self::Whole {
                positions,
                visible,
                dropout: ContextDropout::Pass(*dropout),
            }),
            Self::New { .. } => Err(BlockError::Unsupported {
                key: "dropout".into(),
                found: dropout.rates().to_string(),
                allowed: "decoding with caches has no dropout".into(),
            }),
        }
    }

    /// What is dropped.
    pub fn dropout(&self) -> &ContextDropout {
        match self {
            Self::Whole { dropout, .. } => dropout,
            Self::New { .. } => &ContextDropout::Off,
        }
    }

    /// The context of a layer with its masks, if there is dropout and this is not a layer's.
    pub fn at_layer(&self, layer: Layer) -> Option<Self> {
        let of_layer = self.dropout().at_layer(layer)?;
        let mut context = self.clone();
        if let Self::Whole { dropout, .. } = &mut context {
            *dropout = of_layer;
        }
        Some(context)
    }

    /// Splits into heads and rotates each by its tokens' positions.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq, heads * head_dim]`
    /// - output: `[batch, heads, seq, head_dim]`
    pub(super) fn rotate(&self, x: Tensor<3>, heads: usize) -> Tensor<4> {
        match self {
            Self::Whole { positions, .. } => positions.rotate(split_heads(x, heads)),
            Self::New { positions, .. } => {
                let [batch, seq, width] = x.dims();
                let head_dim = width / heads;
                // Rows of a batch differ in their positions, so they are rotated as one long row.
                let x = x.reshape([1, batch * seq, heads, head_dim]).swap_dims(1, 2);
                let x = positions.rotate(x).swap_dims(1, 2);
                x.reshape([batch, seq, heads, head_dim]).swap_dims(1, 2)
            }
        }
    }
}

/// `[batch, seq, heads * head_dim]` to `[batch, heads, seq, head_dim]`.
pub(super) fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, seq, width] = x.dims();
    x.reshape([batch, seq, heads, width / heads])
        .swap_dims(1, 2)
}

/// `[batch, heads, seq, head_dim]` to `[batch, seq, heads * head_dim]`.
pub(super) fn merge_heads(x: Tensor<4>) -> Tensor<3> {
    let [batch, heads, seq, head_dim] = x.dims();
    x.swap_dims(1, 2).reshape([batch, seq, heads * head_dim])
}
