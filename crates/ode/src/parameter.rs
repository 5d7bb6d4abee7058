//! Declarations of a module's parameters: their names in checkpoints, and their roles.

/// How a parameter is treated by operations on all parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Role {
    /// Its initial value.
    pub start: Start,
    /// Whether weight decay applies to it.
    pub decays: bool,
    /// Whether it is rounded in a half-precision model. Parameters that scale everything stay f32.
    pub halves: bool,
    /// Whether checkpoints store the transpose: `[out, in]` of a projection `[in, out]`.
    pub transposed: bool,
}

/// The value of a parameter before training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// Normally distributed, with the model's `initializer_range` as standard deviation.
    Normal,
    /// The value that the module was built with.
    AsBuilt,
}

impl Role {
    /// A projection `[in, out]`, stored as `[out, in]`.
    pub const PROJECTION: Self = Self {
        start: Start::Normal,
        decays: true,
        halves: true,
        transposed: true,
    };

    /// An embedding `[vocab, d_model]`.
    pub const EMBEDDING: Self = Self {
        transposed: false,
        ..Self::PROJECTION
    };

    /// A norm's scale or shift, a solver's coefficient.
    pub const COEFFICIENT: Self = Self {
        start: Start::AsBuilt,
        decays: false,
        halves: false,
        transposed: false,
    };
}

/// A parameter as declared by its module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in checkpoints, below that of the module.
    pub name: String,
    /// Its role.
    pub role: Role,
}

impl Parameter {
    /// A parameter with the given name.
    pub fn new(name: impl Into<String>, role: Role) -> Self {
        let name = name.into();
        Self { name, role }
    }
}

/// A module that declares its parameters.
///
/// Roles are never guessed: a model with an undeclared parameter is rejected.
pub trait Parameters {
    /// The parameter at a path of field names, such as `["mlp", "up_proj", "weight"]`, or `None` if
    /// it is not declared. List indices are numbers, and the variants of an enum are path segments.
    fn parameter(path: &[&str]) -> Option<Parameter>;
}

/// `LayerNorm` and `RmsNorm` have other names for scale and shift than checkpoints.
pub fn norm_parameter(field: &str) -> Option<&'static str> {
    match field {
        "gamma" => Some("weight"),
        "beta" => Some("bias"),
        _ => None,
    }
}
