//! What a module declares of its parameters: how checkpoints call them, and what they are.

/// How a parameter is treated by those who do something to all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Role {
    /// What a fresh model starts with.
    pub start: Start,
    /// Whether weight decay pulls on it.
    pub decays: bool,
    /// Whether it is rounded in a half-precision model. What scales everything stays f32.
    pub halves: bool,
    /// Whether checkpoints store the transpose: `[out, in]` of a projection `[in, out]`.
    pub transposed: bool,
}

/// What a parameter is before training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// Normal with the model's `initializer_range` as standard deviation.
    Normal,
    /// What the module was built with.
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

/// A parameter as its module declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in checkpoints, below that of the module.
    pub name: String,
    /// What it is.
    pub role: Role,
}

impl Parameter {
    /// A parameter of that name.
    pub fn new(name: impl Into<String>, role: Role) -> Self {
        let name = name.into();
        Self { name, role }
    }
}

/// A module that declares its parameters.
///
/// Nothing is guessed: a model with a parameter that is not declared is refused.
pub trait Parameters {
    /// The parameter at the end of a path of field names, such as `["mlp", "up_proj", "weight"]`,
    /// or `None` if it is not declared. Places in a list are numbers, the variants of an enum are
    /// steps of the path.
    fn parameter(path: &[&str]) -> Option<Parameter>;
}

/// `LayerNorm` and `RmsNorm` call scale and shift otherwise than checkpoints do.
pub fn norm_parameter(field: &str) -> Option<&'static str> {
    match field {
        "gamma" => Some("weight"),
        "beta" => Some("bias"),
        _ => None,
    }
}
