//! AdamW in two groups, with its state by parameter name.
//!
//! The arithmetic is [`iiet_kernels::adamw`]'s, in place. The state is kept by name because it has
//! to survive what Burn's own bookkeeping, by random parameter ids, does not: a restart, and a
//! change of solver that keeps most parameters.

use std::collections::BTreeMap;

use burn::module::Param;
use burn::tensor::{Device, Tensor};
use iiet_kernels::{AdamWStep, WithMoments, adamw};
use iiet_model::{LanguageModel, ParameterMapper, Role, map_parameters};

use crate::TrainSection;
use crate::gradients::AccumulatedGradients;

/// The two moments of one parameter, flattened, and the number of updates they have seen.
#[derive(Debug, Clone)]
pub(crate) struct Moments {
    pub(crate) updates: usize,
    pub(crate) first: Tensor<1>,
    pub(crate) second: Tensor<1>,
}

/// AdamW over a whole model.
#[derive(Debug)]
pub struct ModelAdamW {
    beta_1: f64,
    beta_2: f64,
    /// Of matrices; norms and solver coefficients have none.
    weight_decay: f64,
    pub(crate) moments: BTreeMap<String, Moments>,
}

impl ModelAdamW {
    /// An optimizer that has seen nothing yet.
    pub fn new(train: &TrainSection) -> Self {
        Self {
            beta_1: train.beta_1,
            beta_2: train.beta_2,
            weight_decay: train.weight_decay,
            moments: BTreeMap::new(),
        }
    }

    /// The same with a state of its own on a device, copied through the host's memory.
    pub(crate) fn on(&self, device: &Device) -> Self {
        let copy = |tensor: &Tensor<1>| Tensor::from_data(tensor.to_data(), device);
        let moments = self.moments.iter().map(|(name, moments)| {
            let moments = Moments {
                updates: moments.updates,
                first: copy(&moments.first),
                second: copy(&moments.second),
            };
            (name.clone(), moments)
        });
        Self {
            moments: moments.collect(),
            ..*self
        }
    }

    /// Updates every parameter that has a gradient, which is multiplied by `scale` first.
    ///
    /// Parameters are updated in place where the model holds their only handles; another clone of
    /// the model keeps its values and costs a copy.
    pub fn step(
        &mut self,
        model: LanguageModel,
        gradients: AccumulatedGradients,
        scale: f64,
        lr: f64,
    ) -> LanguageModel {
        map_parameters(
            model,
            &mut Update {
                optimizer: self,
                gradients,
                scale,
                lr,
            },
        )
    }
}

struct Update<'a> {
    optimizer: &'a mut ModelAdamW,
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
        let ModelAdamW {
            beta_1,
            beta_2,
            weight_decay,
            ..
        } = *self.optimizer;
        let Moments {
            updates,
            first,
            second,
        } = self.optimizer.moments.remove(name).unwrap_or_else(|| {
            let zeros = || Tensor::zeros(gradient.shape(), &gradient.device());
            Moments {
                updates: 0,
                first: zeros(),
                second: zeros(),
            }
        });
        let step = AdamWStep {
            lr: self.lr,
            beta_1,
            beta_2,
            eps: 1e-8,
            weight_decay: if role.decays { weight_decay } else { 0.0 },
            scale: self.scale,
            update: updates + 1,
        };
        parameter.map(|tensor| {
            let (tracked, shape) = (tensor.is_require_grad(), tensor.dims());
            let state = WithMoments {
                parameter: tensor.inner().reshape([gradient.dims()[0]]),
                first,
                second,
            };
            let after = adamw(state, gradient, &step);
            let moments = Moments {
                updates: step.update,
                first: after.first,
                second: after.second,
            };
            self.optimizer.moments.insert(name.to_owned(), moments);
            let tensor = after.parameter.reshape(shape);
            if tracked {
                tensor.autodiff().require_grad()
            } else {
                tensor
            }
        })
    }
}
