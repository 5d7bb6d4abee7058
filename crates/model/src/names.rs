//! The names of parameters in checkpoints, and walks over a model that know them.
//!
//! A module path such as `model.solver.IterativeImplicitEuler.history.guess_norms.0.gamma` is
//! called `model.history.rouge_predictions_norm.0.weight` on disk: the published checkpoints'
//! spelling. Linear weights lie transposed there, `[out, in]`.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};

use crate::LanguageModel;

/// What a parameter is, for those who treat kinds of parameters differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A projection `[in, out]`, stored as `[out, in]`.
    Projection,
    /// The embedding `[vocab, d_model]`.
    Embedding,
    /// A norm's scale or shift, a solver's coefficient.
    Coefficient,
}

/// Something done to each parameter in turn.
pub trait ParameterVisitor {
    /// `name` is the checkpoint's.
    fn visit<const D: usize>(&mut self, name: &str, role: Role, parameter: &Param<Tensor<D>>);
}

/// Something that replaces each parameter in turn.
pub trait ParameterMapper {
    /// `name` is the checkpoint's.
    fn map<const D: usize>(
        &mut self,
        name: &str,
        role: Role,
        parameter: Param<Tensor<D>>,
    ) -> Param<Tensor<D>>;
}

/// Visits every parameter of the model.
pub fn visit_parameters(model: &LanguageModel, visitor: &mut impl ParameterVisitor) {
    let path = Path::default();
    model.visit(&mut Named {
        path,
        inner: visitor,
    });
}

/// Replaces every parameter of the model.
pub fn map_parameters(model: LanguageModel, mapper: &mut impl ParameterMapper) -> LanguageModel {
    let path = Path::default();
    model.map(&mut Named {
        path,
        inner: mapper,
    })
}

/// The parameter with another value; whether it is trained stays as it was.
pub(crate) fn with_value<const D: usize>(
    parameter: Param<Tensor<D>>,
    data: TensorData,
    device: &Device,
) -> Param<Tensor<D>> {
    let id = parameter.id;
    let dtype = data.dtype();
    parameter.transform_for_load(Tensor::from_data(data, (device, dtype)), id)
}

/// The module path on the way to a parameter.
#[derive(Default)]
struct Path {
    /// Field name and the type that has the field, such as `("q_proj", "Struct:Attention")`.
    steps: Vec<(String, String)>,
}

impl Path {
    fn enter(&mut self, name: &str, container: &str) {
        self.steps.push((name.into(), container.into()));
    }

    fn exit(&mut self) {
        self.steps.pop();
    }

    fn role(&self) -> Role {
        match self.steps.last().map(|(_, container)| container.as_str()) {
            Some("Struct:Linear") => Role::Projection,
            Some("Struct:Embedding") => Role::Embedding,
            _ => Role::Coefficient,
        }
    }

    fn name(&self) -> String {
        let words = self.steps.iter().filter_map(|(field, container)| {
            match (container.as_str(), field.as_str()) {
                // The solver is not a level of its own: `model.history`, `model.alpha`.
                (_, "solver" | "stages") | ("Enum:AnySolver", _) => None,
                ("Struct:LearnedHistory", "w") => Some("weight"),
                ("Struct:LearnedHistory", "wc") => Some("weight_c"),
                ("Struct:LearnedHistory", "guess_norms") => Some("rouge_predictions_norm"),
                ("Struct:LearnedHistory", "correction_norms") => Some("layer_norms"),
                ("Struct:LearnedEma", "rk_norm") => Some("RK_norm"),
                ("Struct:RmsNorm" | "Struct:LayerNorm", "gamma") => Some("weight"),
                ("Struct:LayerNorm", "beta") => Some("bias"),
                (_, field) => Some(field),
            }
        });
        words.collect::<Vec<_>>().join(".")
    }
}

struct Named<'a, T> {
    path: Path,
    inner: &'a mut T,
}

impl<T: ParameterVisitor> ModuleVisitor for Named<'_, T> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.inner.visit(&self.path.name(), self.path.role(), param);
    }
}

impl<T: ParameterMapper> ModuleMapper for Named<'_, T> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.inner.map(&self.path.name(), self.path.role(), param)
    }
}
