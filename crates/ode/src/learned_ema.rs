//! The learned predictor of PCformer, as a Burn module.

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Tensor};
use iiet_kernels::weighted_sum;

use crate::learned_history::normalise;
use crate::parameter::norm_parameter;
use crate::{EmaStages, Parameter, Parameters, Role};

/// A learned alpha, shared by all layers, and a LayerNorm for each stage.
#[derive(Module, Debug)]
pub struct LearnedEma {
    /// `alpha`, `[1]`, initially 0.5.
    pub alpha: Param<Tensor<1>>,
    /// `LN_j`, one per stage.
    pub rk_norm: Vec<LayerNorm>,
}

impl<const D: usize> EmaStages<Tensor<D>> for LearnedEma {
    fn order(&self) -> usize {
        self.rk_norm.len()
    }

    fn normalise_stage(&self, j: usize, k: Tensor<D>) -> Tensor<D> {
        normalise(&self.rk_norm[j], k)
    }

    fn combine(&self, y: Tensor<D>, stages: Vec<Tensor<D>>) -> Tensor<D> {
        let alpha = self.alpha.val();
        let decay = alpha.clone().neg().add_scalar(1.0);
        // A product rather than a power: its gradient is defined at alpha = 1.
        let mut weights = vec![alpha];
        for age in 1..stages.len() {
            weights.push(weights[age - 1].clone() * decay.clone());
        }
        weights.push(Tensor::ones([1], &y.device()));
        weights.reverse();
        let terms = [y].into_iter().chain(stages).collect();
        weighted_sum(terms, Tensor::cat(weights, 0))
    }
}

impl LearnedEma {
    /// `alpha = 1/2` and neutral norms for `order` stages of width `d_model`.
    pub fn init(order: usize, d_model: usize, device: &Device) -> Self {
        let norm = |_| LayerNormConfig::new(d_model).init(device);
        Self {
            alpha: Param::from_data([0.5f32], device),
            rk_norm: (0..order).map(norm).collect(),
        }
    }
}

/// The names are those of published checkpoints.
impl Parameters for LearnedEma {
    fn parameter(path: &[&str]) -> Option<Parameter> {
        let name = match path {
            ["alpha"] => "alpha".to_owned(),
            ["rk_norm", j, field] => format!("RK_norm.{j}.{}", norm_parameter(field)?),
            _ => return None,
        };
        Some(Parameter::new(name, Role::COEFFICIENT))
    }
}
