//! The names of parameters in checkpoints, and iteration over a model's parameters by name.
//!
//! The module path `model.solver.IterativeImplicitEuler.history.guess_norms.0.gamma` is stored as
//! `model.history.rouge_predictions_norm.0.weight`. Blocks and solvers name the parameters below
//! them ([`Parameters`]); this file defines the rest of the path.

use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use iiet_blocks::Block;
use iiet_ode::{NetworkSolver, Parameter, Parameters, Role, norm_parameter};

use crate::{LanguageModel, ModelError};

/// An operation on each parameter in turn.
pub trait ParameterVisitor {
    /// `name` is the name in checkpoints.
    fn visit<const D: usize>(&mut self, name: &str, role: Role, parameter: &Param<Tensor<D>>);
}

/// A replacement of each parameter in turn.
pub trait ParameterMapper {
    /// `name` is the name in checkpoints.
    fn map<const D: usize>(
        &mut self,
        name: &str,
        role: Role,
        parameter: Param<Tensor<D>>,
    ) -> Param<Tensor<D>>;
}

/// Visits every parameter of the model.
pub fn visit_parameters<B: Block, S: NetworkSolver>(
    model: &LanguageModel<B, S>,
    visitor: &mut impl ParameterVisitor,
) {
    model.visit(&mut Named {
        path: Path::of::<B, S>(),
        inner: visitor,
    });
}

/// Replaces every parameter of the model.
pub fn map_parameters<B: Block, S: NetworkSolver>(
    model: LanguageModel<B, S>,
    mapper: &mut impl ParameterMapper,
) -> LanguageModel<B, S> {
    model.map(&mut Named {
        path: Path::of::<B, S>(),
        inner: mapper,
    })
}

/// The parameter with another value; whether it is trainable does not change.
pub(crate) fn with_value<const D: usize>(
    parameter: Param<Tensor<D>>,
    data: TensorData,
    device: &Device,
) -> Param<Tensor<D>> {
    let id = parameter.id;
    let dtype = data.dtype();
    parameter.transform_for_load(Tensor::from_data(data, (device, dtype)), id)
}

/// The declaration of the parameter at a path, in a model with these blocks and this solver.
fn declared<B: Parameters, S: Parameters>(path: &[&str]) -> Option<Parameter> {
    match path {
        ["model", "embed_tokens", "weight"] => {
            Some(Parameter::new("model.embed_tokens.weight", Role::EMBEDDING))
        }
        ["model", "layers", n, path @ ..] => {
            let Parameter { name, role } = B::parameter(path)?;
            Some(Parameter::new(format!("model.layers.{n}.{name}"), role))
        }
        // The solver does not add a path segment: `model.history`, `model.alpha`.
        ["model", "solver", path @ ..] => {
            let Parameter { name, role } = S::parameter(path)?;
            Some(Parameter::new(format!("model.{name}"), role))
        }
        ["model", "norm", field] => {
            let name = format!("model.norm.{}", norm_parameter(field)?);
            Some(Parameter::new(name, Role::COEFFICIENT))
        }
        ["lm_head", "weight"] => Some(Parameter::new("lm_head.weight", Role::PROJECTION)),
        _ => None,
    }
}

/// Rejects a model with an undeclared parameter, or two with the same name.
pub(crate) fn check_declarations<B: Block, S: NetworkSolver>(
    model: &LanguageModel<B, S>,
) -> Result<(), ModelError> {
    let mut check = Check {
        path: Path::of::<B, S>(),
        names: BTreeSet::new(),
        fault: None,
    };
    model.visit(&mut check);
    match check.fault {
        None => Ok(()),
        Some(error) => Err(error),
    }
}

/// The module path of the current parameter.
struct Path {
    steps: Vec<String>,
    declared: fn(&[&str]) -> Option<Parameter>,
}

impl Path {
    fn of<B: Parameters, S: Parameters>() -> Self {
        Self {
            steps: Vec::new(),
            declared: declared::<B, S>,
        }
    }

    fn parameter(&self) -> Option<Parameter> {
        let steps: Vec<&str> = self.steps.iter().map(String::as_str).collect();
        (self.declared)(&steps)
    }
}

struct Named<'a, T> {
    path: Path,
    inner: &'a mut T,
}

impl<T> Named<'_, T> {
    fn parameter(&self) -> Parameter {
        let parameter = self.path.parameter();
        parameter.expect("invariant: models with undeclared parameters are rejected")
    }
}

impl<T: ParameterVisitor> ModuleVisitor for Named<'_, T> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.steps.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.steps.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Parameter { name, role } = self.parameter();
        self.inner.visit(&name, role, param);
    }
}

impl<T: ParameterMapper> ModuleMapper for Named<'_, T> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.steps.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.steps.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Parameter { name, role } = self.parameter();
        self.inner.map(&name, role, param)
    }
}

struct Check {
    path: Path,
    names: BTreeSet<String>,
    fault: Option<ModelError>,
}

impl ModuleVisitor for Check {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.steps.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.steps.pop();
    }

    fn visit_float<const D: usize>(&mut self, _: &Param<Tensor<D>>) {
        let reason = match self.path.parameter() {
            None => "is not declared by its block or solver".to_owned(),
            Some(Parameter { name, .. }) if self.names.contains(&name) => {
                format!("has the same name as another parameter, {name}")
            }
            Some(Parameter { name, .. }) => {
                self.names.insert(name);
                return;
            }
        };
        self.fault.get_or_insert(ModelError::Declaration {
            path: self.path.steps.join("."),
            reason,
        });
    }
}
