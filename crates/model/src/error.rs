//! What can be wrong with a configuration or a checkpoint.

use std::fmt;
use std::path::PathBuf;

use iiet_blocks::{BlockError, Precision};
use iiet_files::FilesError;
use iiet_ode::OdeError;

use crate::MemoryEstimate;
use crate::memory::Bytes;

/// The errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A size or option that no model can have.
    #[error("{key} is {found}; {allowed}")]
    Config {
        /// The key, with its Hugging Face name in brackets where that differs.
        key: &'static str,
        /// The value found.
        found: String,
        /// What is allowed.
        allowed: String,
    },
    /// Sizes that the block cannot have.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// A parameter that its block or solver does not declare as it should.
    #[error("the parameter {path} {reason}")]
    Declaration {
        /// The module path.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Options that do not fit the solver.
    #[error(transparent)]
    Solver(#[from] OdeError),
    /// Options of a solver that a model with these parameters cannot take over.
    #[error("the solver has the options {found} and cannot take {wanted} without other parameters")]
    OtherSolver {
        /// What was asked for.
        wanted: String,
        /// What it has.
        found: String,
    },
    /// A `config.json` that cannot be read.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, column and reason.
        source: serde_json::Error,
    },
    /// A `config.json` of a model that this crate does not implement.
    #[error("{}: {key} is {found}; {allowed}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The value found.
        found: String,
        /// What is allowed.
        allowed: String,
    },
    /// A file that cannot be opened, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A precision that the device does not compute with.
    #[error("the device does not compute with {precision}")]
    Precision {
        /// What was asked for.
        precision: Precision,
    },
    /// A model of the Hugging Face hub that could not be fetched.
    #[error(
        "{name}: there is no such folder, and fetching it from the Hugging Face hub failed: {reason}"
    )]
    Hub {
        /// Its name there.
        name: String,
        /// What went wrong.
        reason: String,
    },
    /// No weights where a model directory should have them.
    #[error(
        "{}: no weights; looked for model.safetensors and model.safetensors.index.json",
        path.display()
    )]
    NoWeights {
        /// The directory.
        path: PathBuf,
    },
    /// A file that is not safetensors, or is damaged.
    #[error("{}: not a valid safetensors file: {source}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: safetensors::SafeTensorError,
    },
    /// A safetensors header that says what it must not.
    #[error("{}: not a valid safetensors file: {reason}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A manifest that cannot be used, or a file that differs from it.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A configuration of a model far larger than its weights.
    #[error(
        "{}: config.json says num_hidden_layers is {layers}, and the weights are {tensors} tensors",
        path.display()
    )]
    Layers {
        /// The model directory.
        path: PathBuf,
        /// Layers of the configuration.
        layers: usize,
        /// Tensors in the weight files.
        tensors: usize,
    },
    /// A weight that is non-finite, or that the type it is to be stored in cannot hold.
    #[error(
        "{}: {name} holds {value}, which {stored} cannot hold as a finite number; nothing was written",
        path.display()
    )]
    NotFinite {
        /// The directory that was to be written.
        path: PathBuf,
        /// The parameter.
        name: String,
        /// The value.
        value: f32,
        /// The type that was to be stored.
        stored: Precision,
    },
    /// Weights on disk that are non-finite, or become so in the precision asked for.
    #[error(
        "{}: {name} holds {value} at element {element}, which {precision} cannot hold as a finite \
         number{}",
        path.display(),
        and_others(*tensors)
    )]
    NonFiniteWeights {
        /// The model directory.
        path: PathBuf,
        /// The first such tensor, in the order of names.
        name: String,
        /// The first such element of it, counted from 0 as they lie in the file.
        element: usize,
        /// Its value.
        value: f32,
        /// The precision that the tensor was to be read in.
        precision: Precision,
        /// How many such tensors there are.
        tensors: usize,
    },
    /// More memory than there is, before any of it was taken.
    #[error("{estimate}; {} are free; {remedy}", Bytes(*available))]
    Memory {
        /// What is needed and for what.
        estimate: MemoryEstimate,
        /// Bytes free.
        available: u64,
        /// What a user can do.
        remedy: &'static str,
    },
    /// A shard index that names files outside the model directory, or that does not agree with its
    /// shards.
    #[error("{}: {reason}", path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Tensors that are missing, surplus or of another shape or type.
    #[error("{}: the weights do not fit the configuration:{}", path.display(), list(faults))]
    Tensors {
        /// The model directory.
        path: PathBuf,
        /// Every fault, by name.
        faults: Vec<TensorFault>,
    },
}

impl ModelError {
    /// For `map_err`.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// One tensor that keeps a checkpoint from loading.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TensorFault {
    /// The model needs it, the file has not got it.
    Missing {
        /// Its name.
        name: String,
        /// The shape needed.
        shape: Vec<usize>,
    },
    /// The file has it, the model has no use for it.
    Surplus {
        /// Its name.
        name: String,
    },
    /// The shape in the file is not the model's.
    Shape {
        /// Its name.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The model's.
        expected: Vec<usize>,
    },
    /// The element type cannot be read as a weight.
    Type {
        /// Its name.
        name: String,
        /// The type in the file.
        found: String,
    },
}

impl fmt::Display for TensorFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { name, shape } => write!(f, "missing   {name} {shape:?}"),
            Self::Surplus { name } => write!(f, "surplus   {name}"),
            Self::Shape {
                name,
                found,
                expected,
            } => {
                write!(f, "misshapen {name} {found:?}, expected {expected:?}")
            }
            Self::Type { name, found } => {
                write!(f, "type      {name} is {found}; allowed: F32, BF16, F16")
            }
        }
    }
}

fn and_others(tensors: usize) -> String {
    match tensors {
        0 | 1 => String::new(),
        _ => format!("; so do {} other tensors", tensors - 1),
    }
}

fn list(faults: &[TensorFault]) -> String {
    faults.iter().map(|fault| format!("\n  {fault}")).collect()
}
