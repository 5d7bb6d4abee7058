//! The learned multistep coefficients that IIET and PCformer share, as a Burn module.
//!
//! Beside the weights and norms of the published models there may be two things more, of which
//! neither is there by default: a norm of the first state, and a gate for each layer,
//!
//! ```text
//! s_0     = LN_0(y_0)
//! s_n^(i) = (1 - g_n) s_n^(i-1) + g_n LN_n^corr(G_n(z))
//! ```
//!
//! With `g_n = 0` a layer computes what it computes without corrections, so that corrections can be
//! switched on in the middle of a training without a jump of the function (as the residual branches
//! of ReZero, Bachlechner et al., arXiv 2003.04887, and the damped repeats of Parcae, arXiv
//! 2604.12946).

use std::ops::Range;

use burn::module::{Module, Param, ParamId};
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Int, Shape, Tensor, TensorData};
use iiet_kernels::{layer_norm, weighted_sum};

use crate::parameter::norm_parameter;
use crate::{HistoryStart, Layer, Multistep, Parameter, Parameters, Role};

/// Epsilon of every LayerNorm in this module, as in published checkpoints.
const NORM_EPS: f64 = 1e-5;

/// Learned weights over the states of the layers so far, and a LayerNorm for each layer's guess
/// and corrections.
///
/// Only the lower triangle of `w` and `wc` is read; both start at row means unless told otherwise.
#[derive(Module, Debug)]
pub struct LearnedHistory {
    /// `w`, `[layers + 1, layers + 1]`: the weights of the state at which a correction is evaluated.
    pub w: Param<Tensor<2>>,
    /// `wc`, `[layers + 1, layers + 1]`: the weights of the layer's output.
    pub wc: Param<Tensor<2>>,
    /// `LN_n^pred`, one per layer.
    pub guess_norms: Vec<LayerNorm>,
    /// `LN_n^corr`, one per layer.
    pub correction_norms: Vec<LayerNorm>,
    /// `LN_0`, if the first state is normalised like the others.
    pub first_norm: Option<LayerNorm>,
    /// `g`, `[layers]`: the share of a correction that its layer takes, if it is not all of it.
    pub gate: Option<Param<Tensor<1>>>,
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
            w: first_weights(HistoryStart::Mean, layers + 1, device),
            wc: first_weights(HistoryStart::Mean, layers + 1, device),
            guess_norms: norms(),
            correction_norms: norms(),
            first_norm: None,
            gate: None,
        }
    }

    /// The same with fresh weights `w` and `wc`.
    pub fn starting(self, start: HistoryStart, device: &Device) -> Self {
        let layers = self.guess_norms.len();
        Self {
            w: first_weights(start, layers + 1, device),
            wc: first_weights(start, layers + 1, device),
            ..self
        }
    }

    /// The same with a fresh norm of the first state.
    pub fn with_first_norm(self, d_model: usize, device: &Device) -> Self {
        let norm = LayerNormConfig::new(d_model).init(device);
        Self {
            first_norm: Some(norm),
            ..self
        }
    }

    /// The history of a network that has only these layers: of the others neither states nor weights are left.
    pub fn keeping(&self, layers: &[Layer]) -> Self {
        // s_0, and the states of the layers.
        let states = std::iter::once(0).chain(layers.iter().map(|layer| layer.n()));
        let states: Vec<i32> = states.map(|k| k as i32).collect();
        let of_states = |w: &Param<Tensor<2>>| {
            let w = w.val();
            let k = Tensor::<1, Int>::from_data(states.as_slice(), &w.device());
            Param::from_tensor(w.select(0, k.clone()).select(1, k))
        };
        let norms = |norms: &[LayerNorm]| {
            let kept = layers.iter().map(|layer| norms[layer.index()].clone());
            kept.collect()
        };
        Self {
            w: of_states(&self.w),
            wc: of_states(&self.wc),
            guess_norms: norms(&self.guess_norms),
            correction_norms: norms(&self.correction_norms),
            first_norm: self.first_norm.clone(),
            gate: self.gate.as_ref().map(|gate| {
                let gate = gate.val();
                let n: Vec<i32> = layers.iter().map(|layer| layer.index() as i32).collect();
                let n = Tensor::<1, Int>::from_data(n.as_slice(), &gate.device());
                Param::from_tensor(gate.select(0, n))
            }),
        }
    }

    /// The same with a gate on the corrections of each layer, that starts at `g`.
    pub fn with_gate(self, g: f64, device: &Device) -> Self {
        let values = vec![g as f32; self.guess_norms.len()];
        Self {
            gate: Some(Param::from_data(values.as_slice(), device)),
            ..self
        }
    }
}

/// The names are those of the published checkpoints, which have neither a norm of the first state nor
/// a gate.
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
            ["first_norm", field] => format!("history.first_norm.{}", norm_parameter(field)?),
            ["gate"] => "history.gate".to_owned(),
            _ => return None,
        };
        Some(Parameter::new(name, Role::COEFFICIENT))
    }
}

/// The rows of a start up to the diagonal, and zero beyond it.
///
/// Like the matrices of a model, it is allocated when it is first used: its size is quadratic in the number
/// of layers, which a configuration may declare without having the weights.
fn first_weights(start: HistoryStart, size: usize, device: &Device) -> Param<Tensor<2>> {
    let values = move |device: &Device, require_grad: bool| {
        let mut values = vec![0.0f32; size * size];
        for (n, row) in values.chunks_exact_mut(size).enumerate() {
            for (k, weight) in row[..=n].iter_mut().enumerate() {
                *weight = start.weight(n, k);
            }
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
    fn first(&self, y: Tensor<D>) -> Tensor<D> {
        match &self.first_norm {
            Some(norm) => normalise(norm, y),
            None => y,
        }
    }

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

    fn relax(&self, layer: Layer, before: Tensor<D>, corrected: Tensor<D>) -> Tensor<D> {
        let Some(gate) = &self.gate else {
            return corrected;
        };
        let g = gate.val().narrow(0, layer.index(), 1);
        let rest = g.clone().neg().add_scalar(1.0);
        weighted_sum(vec![before, corrected], Tensor::cat(vec![rest, g], 0))
    }

    fn output(&self, layer: Layer, states: &[Tensor<D>]) -> Tensor<D> {
        let n = layer.n();
        weighted_sum(states.to_vec(), row(&self.wc, n, 0..n + 1))
    }
}

/// The entries `k` of row n, as one dimension.
fn row(w: &Param<Tensor<2>>, n: usize, k: Range<usize>) -> Tensor<1> {
    let length = k.len();
    w.val().slice([n..n + 1, k]).reshape([length])
}

/// Computes `norm` as one fused operation.
pub(crate) fn normalise<const D: usize>(norm: &LayerNorm, s: Tensor<D>) -> Tensor<D> {
    let beta = norm
        .beta
        .as_ref()
        .expect("invariant: these norms have a shift");
    layer_norm(s, norm.gamma.val(), beta.val(), NORM_EPS)
}
