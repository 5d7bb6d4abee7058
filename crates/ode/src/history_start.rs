//! Where the learned weights of a history begin.

use serde::{Deserialize, Serialize};

/// The first values of `w` and `wc`. Weights that are there already keep theirs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HistoryStart {
    /// Row means, as in the published models: `w[n,k] = wc[n,k] = 1 / (n + 1)` for k <= n. A
    /// correction of layer n then reads its own iterate with the weight `1 / (n + 1)`.
    #[default]
    Mean,
    /// The layer's own state alone: `w[n,n] = wc[n,n] = 1`, the rest 0.
    ///
    /// A correction is then evaluated at the iterate, `z = s_n^(i-1)`, as in a textbook's fixed-point
    /// iteration, and the layer returns its last state, `y_n = s_n^(r)`. Because the block adds to
    /// its input, `s_n^(i) = LN(s_n^(i-1) + F_n(s_n^(i-1)))`: the layer is repeated, and it is not
    /// the iteration `y_{n-1} + F_n(s_n^(i-1))` of `implicit_euler`. DenseFormer's averages begin at
    /// the last state likewise (Pagliardini et al., arXiv 2402.02622, section 3).
    Textbook,
}

impl HistoryStart {
    /// The weight of state k <= n in row n.
    pub fn weight(self, n: usize, k: usize) -> f32 {
        match self {
            Self::Mean => 1.0 / (n + 1) as f32,
            Self::Textbook if k == n => 1.0,
            Self::Textbook => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_by_hand() {
        let row = |start: HistoryStart| [0, 1, 2].map(|k| start.weight(2, k));
        assert_eq!(row(HistoryStart::Mean), [1.0 / 3.0; 3]);
        assert_eq!(row(HistoryStart::Textbook), [0.0, 0.0, 1.0]);
    }
}
