//! The positions of the tokens of a pass, and what they may attend to.

use burn::tensor::{Device, Tensor};
use iiet_kernels::{CacheRow, Visibility};

use super::{Frequencies, Positions};
use crate::Tokens;

/// What all LLaMA layers of a pass share.
#[derive(Debug, Clone)]
pub enum LlamaContext {
    /// Texts from their beginning.
    Whole {
        /// The rotation of each column.
        positions: Positions,
        /// Which tokens a token sees.
        visible: Visibility,
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
            },
            Tokens::Source { lengths, seq } => Self::Whole {
                positions: Positions::at(frequencies, 0..seq, device),
                visible: Visibility::keys(lengths),
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
