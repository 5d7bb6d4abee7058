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
use iiet_model::{ParameterMapper, ParameterVisitor, Role, map_parameters, visit_parameters};
use serde::{Deserialize, Serialize};

use crate::gradients::AccumulatedGradients;
use crate::muon::{MuonStep, muon};
use crate::ranks::{LAYERS, Part};
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
        let update = Update {
            iterated,
            optimizer: self,
            gradients,
            scale,
            lr,
        };
        map_parameters(model, &mut Whole(update))
    }

    /// The updated values of a rank's part of every parameter that has a gradient, given the gradients of that part.
    /// The model itself is not changed.
    pub(crate) fn step_part<M: TrainedModel>(
        &mut self,
        model: &M,
        gradients: AccumulatedGradients,
        scale: f64,
        lr: f64,
        part: Part,
    ) -> BTreeMap<String, Tensor<1>> {
        let mut of_part = OfPart {
            update: Update {
                iterated: model.iterated_layers(),
                optimizer: self,
                gradients,
                scale,
                lr,
            },
            part,
            updated: BTreeMap::new(),
        };
        visit_parameters(model, &mut of_part);
        of_part.updated
    }
}

/// The options and the inputs of one update.
struct Update<'a> {
    optimizer: &'a mut ModelOptimizer,
    /// The names' beginnings of the layers that take corrections.
    iterated: Vec<String>,
    gradients: AccumulatedGradients,
    scale: f64,
    lr: f64,
}

/// A parameter, and what decides how it is updated.
struct Which<'a> {
    name: &'a str,
    role: Role,
    /// Of a matrix of the blocks.
    matrix: Option<[usize; 2]>,
}

impl<'a> Which<'a> {
    fn new(name: &'a str, role: Role, shape: &[usize]) -> Self {
        let matrix = matrix_of_block(name, role, shape);
        Self { name, role, matrix }
    }
}

/// The shape of a parameter that is a matrix of the blocks: what Muon updates, and where zeros can be kept.
pub(crate) fn matrix_of_block(name: &str, role: Role, shape: &[usize]) -> Option<[usize; 2]> {
    let of_layer = role.decays && name.contains(LAYERS);
    shape.try_into().ok().filter(|_| of_layer)
}

impl Update<'_> {
    /// The flattened values of a parameter, or of a part of it, after an update along their gradient.
    fn of(&mut self, which: &Which<'_>, values: Tensor<1>, gradient: Tensor<1>) -> Tensor<1> {
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
        let Which { name, role, matrix } = *which;
        let (length, device) = (gradient.shape(), gradient.device());
        let zeros = || Tensor::zeros(length.clone(), &device);
        let moments = self.optimizer.moments.remove(name);
        let Moments {
            updates,
            first,
            second,
        } = moments.unwrap_or_else(|| Moments {
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
        // From the weights themselves, so that a resumed run has the same zeros.
        let zero = (keep_zeros && matrix.is_some()).then(|| values.clone().equal_elem(0.0));
        let (after, first, second) = match (kind, matrix) {
            (OptimizerKind::Muon, Some(matrix)) => {
                let step = MuonStep {
                    lr,
                    momentum,
                    weight_decay,
                    scale: self.scale,
                };
                let (after, first) = muon(
                    values.reshape(matrix),
                    first.reshape(matrix),
                    gradient.reshape(matrix),
                    &step,
                );
                (after.flatten(0, 1), first.flatten(0, 1), None)
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
                    parameter: values,
                    first,
                    second: second.unwrap_or_else(zeros),
                };
                let after = adamw(state, gradient, &step);
                (after.parameter, after.first, Some(after.second))
            }
        };
        let moments = Moments {
            updates: update,
            first,
            second,
        };
        self.optimizer.moments.insert(name.to_owned(), moments);
        match zero {
            Some(zero) => after.mask_fill(zero, 0.0),
            None => after,
        }
    }
}

/// Updates of whole parameters, in their places.
struct Whole<'a>(Update<'a>);

impl ParameterMapper for Whole<'_> {
    fn map<const D: usize>(
        &mut self,
        name: &str,
        role: Role,
        parameter: Param<Tensor<D>>,
    ) -> Param<Tensor<D>> {
        let Some(gradient) = self.0.gradients.take(name) else {
            return parameter;
        };
        parameter.map(|tensor| {
            let (tracked, shape) = (tensor.is_require_grad(), tensor.dims());
            let which = Which::new(name, role, &shape);
            let values = tensor.inner().reshape([gradient.dims()[0]]);
            let after = self.0.of(&which, values, gradient.clone()).reshape(shape);
            match tracked {
                true => after.autodiff().require_grad(),
                false => after,
            }
        })
    }
}

/// Updates of a rank's part of each parameter, beside the model.
struct OfPart<'a> {
    update: Update<'a>,
    part: Part,
    updated: BTreeMap<String, Tensor<1>>,
}

impl ParameterVisitor for OfPart<'_> {
    fn visit<const D: usize>(&mut self, name: &str, role: Role, parameter: &Param<Tensor<D>>) {
        let Some(gradient) = self.update.gradients.take(name) else {
            return;
        };
        let values = parameter.val().inner();
        let (shape, length) = (values.dims(), values.shape().num_elements());
        let values = values.reshape([length]).slice([self.part.range(length)]);
        let after = self
            .update
            .of(&Which::new(name, role, &shape), values, gradient);
        self.updated.insert(name.to_owned(), after);
    }
}
