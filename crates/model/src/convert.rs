//! Conversion of a model to another solver.

use std::collections::HashMap;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use iiet_blocks::Block;
use iiet_ode::{NetworkSolver, Options, Role};

use crate::names::{
    ParameterMapper, ParameterVisitor, map_parameters, visit_parameters, with_value,
};
use crate::{ConfigOf, LanguageModel, ModelError};

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
        let mut known = Known::default();
        visit_parameters(self, &mut known);
        let fresh = Self::init(config, seed, device)?;
        let device = device.clone();
        Ok(map_parameters(fresh, &mut TakeOver { known, device }))
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
        options.validate(self.sizes().n_layers)?;
        self.model.solver.adopt(options);
        let found = self.model.solver.options();
        match found == *options {
            true => Ok(self),
            false => Err(ModelError::OtherSolver {
                wanted: format!("{options:?}"),
                found: format!("{found:?}"),
            }),
        }
    }
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
