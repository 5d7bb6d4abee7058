//! Errors of configurations and checkpoints.

use std::fmt;
use std::path::PathBuf;

use iiet_blocks::{BlockError, Precision};
use iiet_compress::CompressError;
use iiet_files::FilesError;
use iiet_ode::OdeError;

use crate::MemoryEstimate;
use crate::memory::Bytes;

/// The errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// An invalid size or option.
    #[error("{key} is {found}; {allowed}")]
    Config {
        /// The key, followed by its Hugging Face name in brackets if that differs.
        key: &'static str,
        /// The value found.
        found: String,
        /// What is allowed.
        allowed: String,
    },
    /// Sizes that the block does not support.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// A parameter that its block or solver does not declare correctly.
    #[error("the parameter {path} {reason}")]
    Declaration {
        /// The module path.
        path: String,
        /// The reason.
        reason: String,
    },
    /// Options that are invalid for the solver.
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
    /// A model with matrices of 8 or 4 bits where weights must be of floats.
    #[error(
        "{}: has a quantization_config: its matrices have 8 or 4 bits; weights of f32, bf16 or f16 are needed \
         here: those of the model that was quantised, or, with what rounding left of them, of \
         `iiet convert --model {} --out DIR`",
        path.display(),
        path.display()
    )]
    Quantised {
        /// The directory.
        path: PathBuf,
    },
    /// A matrix of 8 or 4 bits that cannot be read or written.
    #[error("{}: {name}: {source}", path.display())]
    Packed {
        /// The directory.
        path: PathBuf,
        /// The matrix.
        name: String,
        /// The reason.
        source: Box<CompressError>,
    },
    /// A matrix that cannot be quantised or pruned.
    #[error("{name}: {source}")]
    Compress {
        /// Its name in checkpoints.
        name: String,
        /// The reason.
        source: Box<CompressError>,
    },
    /// A matrix of 8 or 4 bits that should be pruned.
    #[error("{name}: has 8 or 4 bits; allowed are matrices of floats: prune before quantising")]
    PackedMatrix {
        /// Its name in checkpoints.
        name: String,
    },
    /// A sequence-to-sequence model where a language model is needed.
    #[error(
        "{}: is_encoder_decoder is true: this is a sequence-to-sequence model, and a language model is \
         needed here",
        path.display()
    )]
    EncoderDecoder {
        /// The file.
        path: PathBuf,
    },
    /// A language model where a sequence-to-sequence model is needed.
    #[error(
        "{}: a language model, without is_encoder_decoder; a sequence-to-sequence model is needed here",
        path.display()
    )]
    NotEncoderDecoder {
        /// The file.
        path: PathBuf,
    },
    /// An error in the keys of one side of an encoder-decoder.
    #[error("{side}: {source}")]
    Side {
        /// `encoder` or `decoder`.
        side: &'static str,
        /// The error.
        source: Box<ModelError>,
    },
    /// A file that cannot be opened, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A precision that the device does not support.
    #[error("the device does not support computation in {precision}")]
    Precision {
        /// The requested precision.
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
    /// A model directory without weights.
    #[error(
        "{}: no weights; expected model.safetensors or model.safetensors.index.json",
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
    /// An invalid safetensors header.
    #[error("{}: not a valid safetensors file: {reason}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A manifest that cannot be used, or a file that differs from its record.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A configuration with far more layers than the weights.
    #[error(
        "{}: num_hidden_layers is {layers} in config.json, but the weights have only {tensors} tensors",
        path.display()
    )]
    Layers {
        /// The model directory.
        path: PathBuf,
        /// Layers in the configuration.
        layers: usize,
        /// Tensors in the weight files.
        tensors: usize,
    },
    /// A weight that is not finite in the dtype on disk.
    #[error(
        "{}: {name} contains {value}, which is not finite in {stored}; nothing was written",
        path.display()
    )]
    NotFinite {
        /// The output directory.
        path: PathBuf,
        /// The parameter.
        name: String,
        /// The value.
        value: f32,
        /// The dtype on disk.
        stored: Precision,
    },
    /// Weights on disk that are not finite in the requested precision.
    #[error(
        "{}: {name} contains {value} at element {element}, which is not finite in \
         {precision}{}",
        path.display(),
        and_others(*tensors)
    )]
    NonFiniteWeights {
        /// The model directory.
        path: PathBuf,
        /// The first such tensor, in the order of names.
        name: String,
        /// The index of its first such element, in the order of the file.
        element: usize,
        /// Its value.
        value: f32,
        /// The requested precision.
        precision: Precision,
        /// The number of such tensors.
        tensors: usize,
    },
    /// An estimate that exceeds the available memory.
    #[error("{estimate}; {} are free; {remedy}", Bytes(*available))]
    Memory {
        /// The estimate.
        estimate: MemoryEstimate,
        /// Bytes free.
        available: u64,
        /// What the user can change.
        remedy: &'static str,
    },
    /// A shard index that names files outside the model directory, or contradicts its shards.
    #[error("{}: {reason}", path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// Tensors that are missing, surplus or of another shape or dtype.
    #[error("{}: the weights do not match the configuration:{}", path.display(), list(faults))]
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

/// A tensor that prevents a checkpoint from loading.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TensorFault {
    /// A tensor of the model that is not in the file.
    Missing {
        /// Its name.
        name: String,
        /// The model's shape.
        shape: Vec<usize>,
    },
    /// A tensor in the file that the model does not have.
    Surplus {
        /// Its name.
        name: String,
    },
    /// A tensor whose shape in the file differs from the model's.
    Shape {
        /// Its name.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The model's.
        expected: Vec<usize>,
    },
    /// A tensor whose dtype is not supported.
    Type {
        /// Its name.
        name: String,
        /// The dtype in the file.
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
