//! The learned multistep coefficients that IIET and PCformer share, as a Burn module.

use std::ops::Range;

use burn::module::{Module, Param, ParamId};
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Shape, Tensor, TensorData};
use iiet_kernels::{layer_norm, weighted_sum};

use crate::parameter::norm_parameter;
use crate::{Layer, Multistep, Parameter, Parameters, Role};

/// What every LayerNorm here adds to the variance, as in the published checkpoints.
const NORM_EPS: f64 = 1e-5;

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

/// The names are those of the published checkpoints.
impl Parameters for LearnedHistory {
    fn parameter(path: &[&str]) -> Option<Parameter> {
        let name = match path {
            ["w"] => "history.weight".to_owned(),
            ["wc"] => "history.weight_c".to_owned(),
            ["guess_norms", n, field] => {
                let field = norm_parameter(field)?;
                format!("history.rouge_predictions_norm.{n}.{field}")
            }
            ["correction_norms", n, field] => {
                format!("history.layer_norms.{n}.{}", norm_parameter(field)?)
            }
            _ => return None,
        };
        Some(Parameter::new(name, Role::COEFFICIENT))
    }
}

/// Row n is `1 / (n + 1)` up to the diagonal and zero beyond it.
///
/// Like the matrices of a model it takes memory when it is first used: the size grows with the square
/// of the number of layers, which a configuration may claim without having the weights.
fn row_means(size: usize, device: &Device) -> Param<Tensor<2>> {
    let values = move |device: &Device, require_grad: bool| {
        let mut values = vec![0.0f32; size * size];
        for (n, row) in values.chunks_exact_mut(size).enumerate() {
            row[..=n].fill(1.0 / (n + 1) as f32);
        }
        let tensor = Tensor::from_data(TensorData::new::<f32, _>(values, [size, size]), device);
        match require_grad {
            true => tensor.require_grad(),
            false => tensor,
        }
    };
    let shape = Shape::new([size, size]);
    Param::uninitialized(ParamId::new(), values, device.clone(), true, shape)
}

impl<const D: usize> Multistep<Tensor<D>> for LearnedHistory {
    fn normalise_guess(&self, layer: Layer, s: Tensor<D>) -> Tensor<D> {
        normalise(&self.guess_norms[layer.index()], s)
    }

    fn normalise_correction(&self, layer: Layer, s: Tensor<D>) -> Tensor<D> {
        normalise(&self.correction_norms[layer.index()], s)
    }

    fn past(&self, layer: Layer, states: &[Tensor<D>]) -> Tensor<D> {
        let n = layer.n();
        weighted_sum(states.to_vec(), row(&self.w, n, 0..n))
    }

    fn with_present(&self, layer: Layer, past: Tensor<D>, s: Tensor<D>) -> Tensor<D> {
        let n = layer.n();
        let one = Tensor::ones([1], &past.device());
        let weights = Tensor::cat(vec![one, row(&self.w, n, n..n + 1)], 0);
        weighted_sum(vec![past, s], weights)
    }

    fn output(&self, layer: Layer, states: &[Tensor<D>]) -> Tensor<D> {
        let n = layer.n();
        weighted_sum(states.to_vec(), row(&self.wc, n, 0..n + 1))
    }
}

/// The entries `k` of row n, in one dimension.
fn row(w: &Param<Tensor<2>>, n: usize, k: Range<usize>) -> Tensor<1> {
    let length = k.len();
    w.val().slice([n..n + 1, k]).reshape([length])
}

/// What `norm` computes, in one fused operation.
pub(crate) fn normalise<const D: usize>(norm: &LayerNorm, s: Tensor<D>) -> Tensor<D> {
    let beta = norm
        .beta
        .as_ref()
        .expect("invariant: the norms here are made with a shift");
    layer_norm(s, norm.gamma.val(), beta.val(), NORM_EPS)
}
