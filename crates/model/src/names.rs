//! The names of parameters in checkpoints, and iteration over a model's parameters by name.
//!
//! The module path `model.solver.IterativeImplicitEuler.history.guess_norms.0.gamma` is stored as
//! `model.history.rouge_predictions_norm.0.weight`. Blocks and solvers name the parameters below
//! them ([`Parameters`]); this file defines the rest of the path.

use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use iiet_blocks::Block;
use iiet_ode::{NetworkSolver, Parameter, Parameters, Role};

use crate::stack::Stack;
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

/// Visits every parameter of a model: a [`LanguageModel`] or an
/// [`EncoderDecoder`](crate::EncoderDecoder).
pub fn visit_parameters<M: Module + Parameters>(model: &M, visitor: &mut impl ParameterVisitor) {
    model.visit(&mut Named {
        path: Path::of::<M>(),
        inner: visitor,
    });
}

/// Replaces every parameter of a model.
pub fn map_parameters<M: Module + Parameters>(model: M, mapper: &mut impl ParameterMapper) -> M {
    model.map(&mut Named {
        path: Path::of::<M>(),
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

/// `model.embed_tokens.weight`, what a [`Stack`] declares below `model`, `lm_head.weight`.
impl<B: Block, S: NetworkSolver> Parameters for LanguageModel<B, S> {
    fn parameter(path: &[&str]) -> Option<Parameter> {
        match path {
            ["model", "embed_tokens", .., "weight"] => {
                Some(Parameter::new("model.embed_tokens.weight", Role::EMBEDDING))
            }
            ["model", path @ ..] => {
                let Parameter { name, role } = Stack::<B, S>::parameter(path)?;
                Some(Parameter::new(format!("model.{name}"), role))
            }
            ["lm_head", .., "weight"] => Some(Parameter::new("lm_head.weight", Role::PROJECTION)),
            _ => None,
        }
    }
}

/// Rejects a model with an undeclared parameter, or two with the same name.
pub(crate) fn check_declarations<M: Module + Parameters>(model: &M) -> Result<(), ModelError> {
    let mut check = Check {
        path: Path::of::<M>(),
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
    fn of<M: Parameters>() -> Self {
        Self {
            steps: Vec::new(),
            declared: M::parameter,
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
