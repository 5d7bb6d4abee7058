//! Logits, loss and every gradient against PyTorch's; the gradients also with layers recomputed.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{Device, Gradients, Tensor};
use iiet_model::{CrossEntropy, LanguageModel, ParameterVisitor, Role, visit_parameters};
use iiet_ode::Parameters;

use crate::finding::{difference, largest, values};
use crate::golden::{Expected, on_device};
use crate::{Case, ConformanceError, Finding};

/// Entries by parameter name.
pub(crate) type ByName = BTreeMap<String, Vec<f32>>;

pub(crate) fn check(case: &Case, device: &Device) -> Result<Vec<Finding>, ConformanceError> {
    let expected = case.expected()?;
    let model = case.model(device)?;
    let logits = model.forward(on_device(&expected.ids, device));
    let logits = difference(&values("logits", logits)?, &expected.logits);

    let batch = Batch::of(&expected, device);
    let model = model.train();
    let (found, gradients) = loss_and_gradients(&model, &batch)?;
    let at_once = compare(case, &gradients, &expected.gradients)?;

    let mut parts = CollectGradients::default();
    let mut objective = CrossEntropy {
        targets: batch.targets(),
        weights: batch.weights(),
    };
    model.objective_by_layers(batch.ids(), &mut objective, |part| parts.add(&model, part));
    let by_layers = compare(case, &parts.finish()?, &expected.gradients)?;

    let finding = |what, deviation, tolerance| Finding {
        case: case.name.clone(),
        what,
        deviation,
        tolerance,
    };
    Ok(vec![
        finding("logits", logits, 2e-4),
        finding("loss", difference(&found, &[expected.loss]), 1e-5),
        finding("gradients", at_once, 1e-4),
        finding("gradients, layers recomputed", by_layers, 1e-4),
    ])
}

/// The mean loss, and its gradients in one backward pass.
pub(crate) fn loss_and_gradients(
    model: &LanguageModel,
    batch: &Batch<'_>,
) -> Result<(Vec<f32>, ByName), ConformanceError> {
    let loss = model.loss(batch.ids(), batch.targets(), batch.weights());
    let found = values("loss", loss.clone().inner())?;
    let mut gradients = CollectGradients::default();
    gradients.add(model, loss.backward());
    Ok((found, gradients.finish()?))
}

/// The case's tokens as a training batch whose loss is a mean over all predictions.
pub(crate) struct Batch<'a> {
    inputs: Vec<Vec<u32>>,
    targets: Vec<Vec<u32>>,
    device: &'a Device,
}

impl<'a> Batch<'a> {
    pub(crate) fn of(expected: &Expected, device: &'a Device) -> Self {
        let rows = expected.ids.iter();
        Self {
            inputs: rows
                .clone()
                .map(|row| row[..row.len() - 1].to_vec())
                .collect(),
            targets: rows.map(|row| row[1..].to_vec()).collect(),
            device,
        }
    }

    pub(crate) fn ids(&self) -> Tensor<2, burn::tensor::Int> {
        on_device(&self.inputs, self.device)
    }

    pub(crate) fn targets(&self) -> Tensor<2, burn::tensor::Int> {
        on_device(&self.targets, self.device)
    }

    pub(crate) fn weights(&self) -> Tensor<2> {
        let shape = [self.inputs.len(), self.inputs[0].len()];
        Tensor::full(shape, 1.0 / (shape[0] * shape[1]) as f64, self.device)
    }
}

/// The largest deviation of any entry from PyTorch's, relative to the largest entry of its
/// parameter.
pub(crate) fn compare(
    case: &Case,
    found: &ByName,
    expected: &ByName,
) -> Result<f64, ConformanceError> {
    if !found.keys().eq(expected.keys()) {
        let names = |of: &ByName| of.keys().cloned().collect::<Vec<_>>().join(", ");
        return Err(case.refuse(format!(
            "gradients of {}; PyTorch's are of {}",
            names(found),
            names(expected)
        )));
    }
    let shares = found
        .iter()
        .zip(expected.values())
        .map(|((_, found), expected)| {
            let most = largest(expected.iter().map(|x| f64::from(x.abs())));
            match difference(found, expected) {
                0.0 => 0.0,
                difference => difference / most,
            }
        });
    Ok(largest(shares))
}

/// The sum of gradients, in the layout of checkpoints.
#[derive(Default)]
pub(crate) struct CollectGradients {
    part: Option<Gradients>,
    by_name: ByName,
    failed: Option<ConformanceError>,
}

impl CollectGradients {
    pub(crate) fn add<M: Module + Parameters>(&mut self, model: &M, part: Gradients) {
        self.part = Some(part);
        visit_parameters(model, self);
    }

    pub(crate) fn finish(self) -> Result<ByName, ConformanceError> {
        self.failed.map_or(Ok(self.by_name), Err)
    }
}

impl ParameterVisitor for CollectGradients {
    fn visit<const D: usize>(&mut self, name: &str, role: Role, parameter: &Param<Tensor<D>>) {
        let value = parameter.val();
        let gradient = self.part.as_ref().and_then(|part| value.grad(part));
        // A parameter that the loss does not depend on has no gradient; PyTorch stores zeros.
        let gradient = gradient.unwrap_or_else(|| value.inner().zeros_like());
        let gradient = match role.transposed {
            true => gradient.transpose(),
            false => gradient,
        };
        match values(name, gradient) {
            Ok(gradient) => match self.by_name.get_mut(name) {
                Some(sum) => sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g),
                None => {
                    self.by_name.insert(name.to_owned(), gradient);
                }
            },
            Err(error) => self.failed = Some(error),
        }
    }
}
