//! Conversion of a model to another solver.

use std::collections::HashMap;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use iiet_blocks::Block;
use iiet_ode::{NetworkSolver, Options, Parameters, Role};

use crate::names::{
    ParameterMapper, ParameterVisitor, map_parameters, visit_parameters, with_value,
};
use crate::{ConfigOf, EncoderDecoder, EncoderDecoderConfig, LanguageModel, ModelError, Stack};

impl<B: Block, S: NetworkSolver> LanguageModel<B, S> {
    /// A model of another configuration that takes over every parameter of this one with the same
    /// name and shape; the others are newly initialised.
    ///
    /// This turns a LLaMA checkpoint into an ODE transformer, and switches the solver in two-stage
    /// training. With the textbook implicit Euler at r = 0 the function stays exactly the same.
    ///
    /// # Errors
    ///
    /// The errors of [`ModelConfig::validate`](crate::ModelConfig::validate).
    pub fn with_config(
        &self,
        config: &ConfigOf<B, S>,
        seed: u64,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let fresh = Self::init(config, seed, device)?;
        Ok(taken_over(self, fresh, device))
    }

    /// The same model and the same weights with other options of its solver, of those that need no
    /// other parameters: how many corrections each layer takes, and how they are taken.
    ///
    /// No parameter belongs to one correction, so there may be more of them than in training.
    ///
    /// # Errors
    ///
    /// [`ModelError::Solver`] for options that the solver cannot have at this depth, and
    /// [`ModelError::OtherSolver`] for those that belong to a model with other parameters.
    pub fn with_solver_options(mut self, options: &S::Options) -> Result<Self, ModelError> {
        let n_layers = self.sizes().n_layers;
        adopt(&mut self.model.solver, options, n_layers)?;
        Ok(self)
    }
}

impl EncoderDecoder {
    /// A model of another configuration that takes over every parameter of this one with the same
    /// name and shape, as [`LanguageModel::with_config`] does.
    ///
    /// # Errors
    ///
    /// The errors of [`EncoderDecoderConfig::validate`].
    pub fn with_config(
        &self,
        config: &EncoderDecoderConfig,
        seed: u64,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let fresh = Self::init(config, seed, device)?;
        Ok(taken_over(self, fresh, device))
    }
}

impl<B: Block, S: NetworkSolver> Stack<B, S> {
    /// The same layers with other options of their solver, of those that need no other parameters, as
    /// [`LanguageModel::with_solver_options`] has them.
    ///
    /// # Errors
    ///
    /// [`ModelError::Solver`] for options that the solver cannot have at this depth, and
    /// [`ModelError::OtherSolver`] for those that belong to a model with other parameters.
    pub fn with_solver_options(mut self, options: &S::Options) -> Result<Self, ModelError> {
        adopt(&mut self.solver, options, self.layers.len())?;
        Ok(self)
    }
}

/// Gives a solver other options of those that need no other parameters.
fn adopt<S: NetworkSolver>(
    solver: &mut S,
    options: &S::Options,
    n_layers: usize,
) -> Result<(), ModelError> {
    options.validate(n_layers)?;
    solver.adopt(options);
    let found = solver.options();
    match found == *options {
        true => Ok(()),
        false => Err(ModelError::OtherSolver {
            wanted: format!("{options:?}"),
            found: format!("{found:?}"),
        }),
    }
}

/// A newly initialised model with the parameters of another that have the same name and shape.
fn taken_over<M: Module + Parameters>(from: &M, fresh: M, device: &Device) -> M {
    let mut known = Known::default();
    visit_parameters(from, &mut known);
    let device = device.clone();
    map_parameters(fresh, &mut TakeOver { known, device })
}

#[derive(Default)]
struct Known {
    by_name: HashMap<String, TensorData>,
}

impl ParameterVisitor for Known {
    fn visit<const D: usize>(&mut self, name: &str, _role: Role, parameter: &Param<Tensor<D>>) {
        self.by_name
            .insert(name.to_owned(), parameter.val().to_data());
    }
}

struct TakeOver {
    known: Known,
    device: Device,
}

impl ParameterMapper for TakeOver {
    fn map<const D: usize>(
        &mut self,
        name: &str,
        _role: Role,
        parameter: Param<Tensor<D>>,
    ) -> Param<Tensor<D>> {
        match self.known.by_name.remove(name) {
            Some(data) if *data.shape() == parameter.lazy_shape() => {
                with_value(parameter, data, &self.device)
            }
            _ => parameter,
        }
    }
}
