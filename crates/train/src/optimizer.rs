//! The optimiser of a whole model, with its state by parameter name: AdamW, or Muon for the matrices
//! of the blocks and AdamW for everything else.
//!
//! AdamW's arithmetic is [`iiet_kernels::adamw`]'s, in place. The state is kept by name because it has
//! to survive what Burn's own bookkeeping, by random parameter ids, does not: a restart, and a
//! change of solver that keeps most parameters.

use std::collections::BTreeMap;

use burn::module::Param;
use burn::tensor::{Device, Tensor};
use iiet_kernels::{AdamWStep, WithMoments, adamw};
use iiet_model::{ParameterMapper, Role, map_parameters};
use serde::{Deserialize, Serialize};

use crate::gradients::AccumulatedGradients;
use crate::muon::{MuonStep, muon};
use crate::{TrainSection, TrainedModel};

/// The moments of one parameter, flattened, and the number of updates they have seen.
#[derive(Debug, Clone)]
pub(crate) struct Moments {
    pub(crate) updates: usize,
    pub(crate) first: Tensor<1>,
    /// Of AdamW alone.
    pub(crate) second: Option<Tensor<1>>,
}

/// What the matrices of the blocks are updated by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// AdamW, as everything else.
    #[default]
    AdamW,
    /// Muon: one moment, and an orthogonalised direction.
    Muon,
}

/// The optimiser of a whole model.
#[derive(Debug)]
pub struct ModelOptimizer {
    kind: OptimizerKind,
    /// Decay of Muon's momentum.
    momentum: f64,
    /// What the learning rate of the blocks of iterated layers is multiplied by.
    iterated_lr: f64,
    beta_1: f64,
    beta_2: f64,
    /// Weight decay of matrices; norms and solver coefficients are not decayed.
    weight_decay: f64,
    /// Whether weights of the blocks' matrices that are zero stay zero.
    keep_zeros: bool,
    pub(crate) moments: BTreeMap<String, Moments>,
}

impl ModelOptimizer {
    /// An optimizer without state.
    pub fn new(train: &TrainSection) -> Self {
        Self {
            kind: train.optimizer,
            momentum: train.momentum,
            iterated_lr: train.iterated_lr,
            beta_1: train.beta_1,
            beta_2: train.beta_2,
            weight_decay: train.weight_decay,
            keep_zeros: train.keep_zeros,
            moments: BTreeMap::new(),
        }
    }

    /// A copy with separate state on a device, transferred through host memory.
    pub(crate) fn on(&self, device: &Device) -> Self {
        let copy = |tensor: &Tensor<1>| Tensor::from_data(tensor.to_data(), device);
        let moments = self.moments.iter().map(|(name, moments)| {
            let moments = Moments {
                updates: moments.updates,
                first: copy(&moments.first),
                second: moments.second.as_ref().map(copy),
            };
            (name.clone(), moments)
        });
        Self {
            moments: moments.collect(),
            ..*self
        }
    }

    /// Updates every parameter that has a gradient. Gradients are first multiplied by `scale`. Parameters are
    /// updated in place unless they are shared; another clone of the model keeps its values and costs a copy.
    pub fn step<M: TrainedModel>(
        &mut self,
        model: M,
        gradients: AccumulatedGradients,
        scale: f64,
        lr: f64,
    ) -> M {
        let iterated = model.iterated_layers();
        map_parameters(
            model,
            &mut Update {
                iterated,
                optimizer: self,
                gradients,
                scale,
                lr,
            },
        )
    }
}

/// What the names of the blocks' parameters contain, on either side of a model.
const LAYERS: &str = ".layers.";

struct Update<'a> {
    optimizer: &'a mut ModelOptimizer,
    /// The names' beginnings of the layers that take corrections.
    iterated: Vec<String>,
    gradients: AccumulatedGradients,
    scale: f64,
    lr: f64,
}

impl ParameterMapper for Update<'_> {
    fn map<const D: usize>(
        &mut self,
        name: &str,
        role: Role,
        parameter: Param<Tensor<D>>,
    ) -> Param<Tensor<D>> {
        let Some(gradient) = self.gradients.take(name) else {
            return parameter;
        };
        let ModelOptimizer {
            kind,
            momentum,
            iterated_lr,
            beta_1,
            beta_2,
            weight_decay,
            keep_zeros,
            ..
        } = *self.optimizer;
        let (length, device) = (gradient.shape(), gradient.device());
        let zeros = || Tensor::zeros(length.clone(), &device);
        let Moments {
            updates,
            first,
            second,
        } = self
            .optimizer
            .moments
            .remove(name)
            .unwrap_or_else(|| Moments {
                updates: 0,
                first: zeros(),
                second: None,
            });
        let weight_decay = if role.decays { weight_decay } else { 0.0 };
        let lr = match self.iterated.iter().any(|layer| name.starts_with(layer)) {
            true => self.lr * iterated_lr,
            false => self.lr,
        };
        let update = updates + 1;
        let is_matrix = D == 2 && role.decays && name.contains(LAYERS);
        parameter.map(|tensor| {
            let (tracked, shape) = (tensor.is_require_grad(), tensor.dims());
            let tensor = tensor.inner();
            // From the weights themselves, so that a resumed run has the same zeros.
            let zero = (keep_zeros && is_matrix).then(|| tensor.clone().equal_elem(0.0));
            let (after, first, second) = match kind {
                OptimizerKind::Muon if is_matrix => {
                    let step = MuonStep {
                        lr,
                        momentum,
                        weight_decay,
                        scale: self.scale,
                    };
                    let matrix = [shape[0], shape[1]];
                    let (after, first) = muon(
                        tensor.reshape(matrix),
                        first.reshape(matrix),
                        gradient.reshape(matrix),
                        &step,
                    );
                    (after.reshape(shape), first.flatten(0, 1), None)
                }
                _ => {
                    let step = AdamWStep {
                        lr,
                        beta_1,
                        beta_2,
                        eps: 1e-8,
                        weight_decay,
                        scale: self.scale,
                        update,
                    };
                    let state = WithMoments {
                        parameter: tensor.reshape([gradient.dims()[0]]),
                        first,
                        second: second.unwrap_or_else(zeros),
                    };
                    let after = adamw(state, gradient.clone(), &step);
                    (
                        after.parameter.reshape(shape),
                        after.first,
                        Some(after.second),
                    )
                }
            };
            let after = match zero {
                Some(zero) => after.mask_fill(zero, 0.0),
                None => after,
            };
            let moments = Moments {
                updates: update,
                first,
                second,
            };
            self.optimizer.moments.insert(name.to_owned(), moments);
            match tracked {
                true => after.autodiff().require_grad(),
                false => after,
            }
        })
    }
}
