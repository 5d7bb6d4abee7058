//! AdamW in two groups, with its state by parameter name.
//!
//! Burn's AdamW does the arithmetic (Loshchilov and Hutter, arXiv 1711.05101). The state is kept
//! here because it has to survive what Burn's own bookkeeping, by random parameter ids, does not:
//! a restart, and a change of solver that keeps most parameters.

use std::collections::BTreeMap;

use burn::module::Param;
use burn::optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, Optimizer};
use burn::tensor::Tensor;
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
pub(crate) struct ModelAdamW {
    with_decay: AdamW,
    without_decay: AdamW,
    pub(crate) moments: BTreeMap<String, Moments>,
}

impl ModelAdamW {
    /// An optimizer that has seen nothing yet.
    pub(crate) fn new(train: &TrainSection) -> Self {
        let config = AdamWConfig::new()
            .with_beta_1(train.beta_1 as f32)
            .with_beta_2(train.beta_2 as f32)
            .with_epsilon(1e-8);
        Self {
            with_decay: config
                .clone()
                .with_weight_decay(train.weight_decay as f32)
                .build(),
            without_decay: config.with_weight_decay(0.0).build(),
            moments: BTreeMap::new(),
        }
    }

    /// Updates every parameter that has a gradient, which is multiplied by `scale` first.
    pub(crate) fn step(
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
        let optimizer = match role {
            Role::Projection | Role::Embedding => &self.optimizer.with_decay,
            Role::Coefficient => &self.optimizer.without_decay,
        };
        let state = self.optimizer.moments.remove(name).map(|moments| {
            let Moments {
                updates,
                first,
                second,
            } = moments;
            AdamWState::new(AdaptiveMomentumState::new(updates, first, second))
        });
        let mut state_after = None;
        let updated = parameter.map(|tensor| {
            let (tracked, shape) = (tensor.is_require_grad(), tensor.dims());
            let flat = tensor.inner().reshape([gradient.dims()[0]]);
            let (flat, state) = optimizer.step(self.lr, flat, gradient * self.scale, state);
            state_after = state;
            let tensor = flat.reshape(shape);
            if tracked {
                tensor.autodiff().require_grad()
            } else {
                tensor
            }
        });
        if let Some(AdamWState { momentum }) = state_after {
            let moments = Moments {
                updates: momentum.time,
                first: momentum.moment_1,
                second: momentum.moment_2,
            };
            self.optimizer.moments.insert(name.to_owned(), moments);
        }
        updated
    }
}
