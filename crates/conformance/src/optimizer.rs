//! Two steps of AdamW against the formula in f64.
//!
//! The formula uses the device's own gradients: where a gradient is almost zero, AdamW's first step depends
//! only on its sign.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use iiet_model::{LanguageModel, ParameterVisitor, Role, visit_parameters};
use iiet_train::{AccumulatedGradients, ModelOptimizer};

use crate::finding::{largest, values};
use crate::parity::{Batch, ByName, CollectGradients};
use crate::training::tiny_config;
use crate::{Case, ConformanceError, Finding};

const LR: f64 = 1e-2;
/// The factor for the gradients, as in clipping.
const SCALE: f64 = 0.5;
const STEPS: i32 = 2;

pub(crate) fn check(case: &Case, device: &Device) -> Result<Vec<Finding>, ConformanceError> {
    let expected = case.expected()?;
    let batch = Batch::of(&expected, device);
    let train = tiny_config().train;
    let mut optimizer = ModelOptimizer::new(&train);
    let mut model = case.model(device)?.train();
    let mut formula = Formula {
        betas: [train.beta_1, train.beta_2],
        weight_decay: train.weight_decay,
        state: BTreeMap::new(),
    };
    let mut deviations = Vec::new();
    for update in 1..=STEPS {
        let loss = || model.loss(batch.ids(), batch.targets(), batch.weights());
        let mut on_host = CollectGradients::default();
        on_host.add(&model, loss().backward());
        let on_host = on_host.finish()?;
        let mut accumulated = AccumulatedGradients::default();
        accumulated.add(&model, loss().backward());
        formula.update(&Parameters::of(&model)?, &on_host, update);
        model = optimizer.step(model, accumulated, SCALE, LR);
        for (name, values) in &Parameters::of(&model)?.by_name {
            let state = &formula.state[name];
            let pairs = values.iter().zip(&state.parameter);
            deviations.push(largest(pairs.map(|(a, b)| (f64::from(*a) - b).abs())));
        }
    }
    Ok(vec![Finding {
        case: case.name.clone(),
        what: "parameters after each of two steps",
        deviation: largest(deviations),
        tolerance: 1e-4 * LR,
    }])
}

/// AdamW, algorithm 2 of Loshchilov and Hutter (arXiv 1711.05101).
struct Formula {
    betas: [f64; 2],
    weight_decay: f64,
    state: BTreeMap<String, State>,
}

#[derive(Default)]
struct State {
    parameter: Vec<f64>,
    first: Vec<f64>,
    second: Vec<f64>,
}

impl Formula {
    fn update(&mut self, parameters: &Parameters, gradients: &ByName, t: i32) {
        let [beta_1, beta_2] = self.betas;
        for (name, values) in &parameters.by_name {
            let state = self.state.entry(name.clone()).or_default();
            state.first.resize(values.len(), 0.0);
            state.second.resize(values.len(), 0.0);
            // From the device's parameters, so that each step is checked and not their sum.
            state.parameter = values.iter().copied().map(f64::from).collect();
            let decay = match parameters.roles[name].decays {
                true => self.weight_decay,
                false => 0.0,
            };
            for (i, p) in state.parameter.iter_mut().enumerate() {
                let g = SCALE * f64::from(gradients[name][i]);
                let (m, v) = (&mut state.first[i], &mut state.second[i]);
                *m = beta_1 * *m + (1.0 - beta_1) * g;
                *v = beta_2 * *v + (1.0 - beta_2) * g * g;
                let (m_hat, v_hat) = (*m / (1.0 - beta_1.powi(t)), *v / (1.0 - beta_2.powi(t)));
                *p -= LR * (m_hat / (v_hat.sqrt() + 1e-8) + decay * *p);
            }
        }
    }
}

/// The parameters in the layout of checkpoints, like collected gradients.
#[derive(Default)]
struct Parameters {
    by_name: ByName,
    roles: BTreeMap<String, Role>,
    failed: Option<ConformanceError>,
}

impl Parameters {
    fn of(model: &LanguageModel) -> Result<Self, ConformanceError> {
        let mut parameters = Self::default();
        visit_parameters(model, &mut parameters);
        match parameters.failed.take() {
            Some(error) => Err(error),
            None => Ok(parameters),
        }
    }
}

impl ParameterVisitor for Parameters {
    fn visit<const D: usize>(&mut self, name: &str, role: Role, parameter: &Param<Tensor<D>>) {
        let value = match role.transposed {
            true => parameter.val().inner().transpose(),
            false => parameter.val().inner(),
        };
        match values(name, value) {
            Ok(values) => {
                self.by_name.insert(name.to_owned(), values);
                self.roles.insert(name.to_owned(), role);
            }
            Err(error) => self.failed = Some(error),
        }
    }
}
