//! Gradients by parameter name: accumulation over micro-batches, norm, scaling.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::Param;
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use iiet_kernels::{in_f32, sum_of_squares};
use iiet_model::{Objective, ParameterVisitor, Role, visit_parameters};

use crate::config::Recompute;
use crate::ranks::{Exchange, LAYERS};
use crate::{AllReduce, BatchTensors, TrainedModel};

/// The sum of the gradients of several micro-batches, each flattened, in f32 or wider.
#[derive(Debug, Default)]
pub struct AccumulatedGradients {
    by_name: BTreeMap<String, Tensor<1>>,
}

impl AccumulatedGradients {
    /// Adds the gradients of one backward pass.
    pub fn add<M: TrainedModel>(&mut self, model: &M, gradients: Gradients) {
        self.add_part(model, gradients, &mut None);
    }

    /// The same in the last backward pass of a step, layer by layer: the gradients of the layers in this part are
    /// complete, and begin their exchange.
    fn add_part<M: TrainedModel>(
        &mut self,
        model: &M,
        gradients: Gradients,
        exchange: &mut Option<&mut Exchange<'_>>,
    ) {
        let mut collect = Collect {
            gradients,
            into: &mut self.by_name,
            exchange: exchange.as_deref_mut(),
        };
        visit_parameters(model, &mut collect);
    }

    /// Adds the gradients of a batch's loss, and returns the loss: a sum over its tokens. If an exchange is given,
    /// gradients that are complete before the backward pass ends go there.
    pub(crate) fn add_loss<M: TrainedModel>(
        &mut self,
        model: &M,
        batch: &BatchTensors,
        objective: &mut dyn Objective,
        recompute: Recompute,
        mut exchange: Option<&mut Exchange<'_>>,
    ) -> f64 {
        let sum = match recompute {
            Recompute::None => {
                let sum = model.loss_of(batch, objective);
                self.add(model, sum.backward());
                sum
            }
            Recompute::Layer => model.loss_by_layers(batch, objective, &mut |part| {
                self.add_part(model, part, &mut exchange);
            }),
        };
        f64::from(sum.into_scalar::<f32>())
    }

    /// Divides by the loss scale, a power of two.
    pub(crate) fn divide_by(&mut self, scale: f64) {
        if scale != 1.0 {
            let by_name = std::mem::take(&mut self.by_name).into_iter();
            self.by_name = by_name
                .map(|(name, gradient)| (name, gradient / scale))
                .collect();
        }
    }

    /// The global Euclidean norm.
    pub fn norm(&self) -> f64 {
        self.sum_of_squares().sqrt()
    }

    /// The sum of all squares.
    pub(crate) fn sum_of_squares(&self) -> f64 {
        let squares: Vec<Tensor<1>> = self
            .by_name
            .values()
            .map(|g| sum_of_squares(g.clone()))
            .collect();
        if squares.is_empty() {
            return 0.0;
        }
        // One transfer from the device for all norms, and a sum in f64.
        let squares = Tensor::cat(squares, 0).into_data().convert::<f64>();
        let squares = squares
            .as_slice::<f64>()
            .expect("invariant: converted to f64 above");
        squares.iter().sum()
    }

    /// The sum of `of_each`, the gradients of each device, on every device.
    pub(crate) fn sums(mut of_each: Vec<Self>, all_reduce: &dyn AllReduce) -> Vec<Self> {
        let names = of_each
            .iter()
            .flat_map(|gradients| gradients.by_name.keys());
        let names: BTreeSet<String> = names.cloned().collect();
        for name in names {
            let taken = of_each.iter_mut().map(|gradients| gradients.take(&name));
            let parts: Option<Vec<Tensor<1>>> = taken.collect();
            let parts =
                parts.expect("invariant: equal graphs have gradients to the same parameters");
            for (gradients, sum) in of_each.iter_mut().zip(all_reduce.sum(parts)) {
                gradients.by_name.insert(name.clone(), sum);
            }
        }
        of_each
    }

    /// Gives what has not been given yet.
    pub(crate) fn give(self, exchange: &mut Exchange<'_>) {
        for (name, gradient) in self.by_name {
            exchange.give(&name, gradient);
        }
    }

    /// Gradients, or parts of them, from host memory.
    pub(crate) fn from_host(by_name: BTreeMap<String, Vec<f32>>, device: &Device) -> Self {
        let by_name = by_name.into_iter().map(|(name, values)| {
            let length = values.len();
            let data = TensorData::new::<f32, _>(values, [length]);
            (name, Tensor::from_data(data, device))
        });
        Self {
            by_name: by_name.collect(),
        }
    }

    /// Removes and returns one parameter's gradient.
    pub(crate) fn take(&mut self, name: &str) -> Option<Tensor<1>> {
        self.by_name.remove(name)
    }
}

struct Collect<'a, 'b> {
    gradients: Gradients,
    into: &'a mut BTreeMap<String, Tensor<1>>,
    /// Takes the gradients of layers.
    exchange: Option<&'a mut Exchange<'b>>,
}

impl ParameterVisitor for Collect<'_, '_> {
    fn visit<const D: usize>(&mut self, name: &str, _role: Role, parameter: &Param<Tensor<D>>) {
        // A parameter that the loss does not depend on has no gradient and is not updated.
        let Some(gradient) = parameter.val().grad_remove(&mut self.gradients) else {
            return;
        };
        let elements = gradient.shape().num_elements();
        // Some gradients to half-precision parameters are not f32 yet.
        let gradient = in_f32(gradient.reshape([elements]));
        let sum = match self.into.remove(name) {
            Some(before) => before + gradient,
            None => gradient,
        };
        match &mut self.exchange {
            Some(exchange) if name.contains(LAYERS) => exchange.give(name, sum),
            _ => {
                self.into.insert(name.to_owned(), sum);
            }
        }
    }
}
