//! The learned multistep coefficients that IIET and PCformer share, as a Burn module.

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Tensor, TensorData};

use crate::Multistep;

/// Learned weights over the states of the layers so far, and a LayerNorm for each layer's guess
/// and corrections.
///
/// Only the lower triangle of `w` and `wc` is read; both start at row means.
#[derive(Module, Debug)]
pub struct LearnedHistory {
    /// `w`, `[layers + 1, layers + 1]`: what a correction is evaluated at.
    pub w: Param<Tensor<2>>,
    /// `wc`, `[layers + 1, layers + 1]`: what the layer returns.
    pub wc: Param<Tensor<2>>,
    /// `LN_n^pred`, one for each layer.
    pub guess_norms: Vec<LayerNorm>,
    /// `LN_n^corr`, one for each layer.
    pub correction_norms: Vec<LayerNorm>,
}

impl LearnedHistory {
    /// Row means and neutral norms for states `[batch, seq, d_model]` of `layers` layers.
    pub fn init(layers: usize, d_model: usize, device: &Device) -> Self {
        let norms = || {
            (0..layers)
                .map(|_| LayerNormConfig::new(d_model).init(device))
                .collect()
        };
        Self {
            w: row_means(layers + 1, device),
            wc: row_means(layers + 1, device),
            guess_norms: norms(),
            correction_norms: norms(),
        }
    }
}

/// Row n is `1 / (n + 1)` up to the diagonal and zero beyond it.
fn row_means(size: usize, device: &Device) -> Param<Tensor<2>> {
    let mut values = vec![0.0f32; size * size];
    for (n, row) in values.chunks_exact_mut(size).enumerate() {
        row[..=n].fill(1.0 / (n + 1) as f32);
    }
    Param::from_data(TensorData::new::<f32, _>(values, [size, size]), device)
}

impl<const D: usize> Multistep<Tensor<D>> for LearnedHistory {
    fn normalise_guess(&self, n: usize, s: Tensor<D>) -> Tensor<D> {
        self.guess_norms[n - 1].forward(s)
    }

    fn normalise_correction(&self, n: usize, s: Tensor<D>) -> Tensor<D> {
        self.correction_norms[n - 1].forward(s)
    }

    fn past(&self, n: usize, states: &[Tensor<D>]) -> Tensor<D> {
        weighted_sum(&self.w, n, states)
    }

    fn present(&self, n: usize, s: Tensor<D>) -> Tensor<D> {
        s * entry(&self.w.val(), n, n)
    }

    fn output(&self, n: usize, states: &[Tensor<D>]) -> Tensor<D> {
        weighted_sum(&self.wc, n, states)
    }
}

/// `sum_k w[n,k] s_k` over the states given.
fn weighted_sum<const D: usize>(w: &Param<Tensor<2>>, n: usize, states: &[Tensor<D>]) -> Tensor<D> {
    let w = w.val();
    states
        .iter()
        .enumerate()
        .map(|(k, s_k)| s_k.clone() * entry(&w, n, k))
        .reduce(|sum, term| sum + term)
        .expect("invariant: the history holds at least s_0")
}

/// `w[n,k]` as a tensor of rank D that broadcasts, so that its gradient is kept.
fn entry<const D: usize>(w: &Tensor<2>, n: usize, k: usize) -> Tensor<D> {
    w.clone().slice([n..n + 1, k..k + 1]).reshape([1; D])
}
