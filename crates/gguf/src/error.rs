//! Errors of reading, writing and converting GGUF files.

use std::io;
use std::path::PathBuf;

use iiet_compress::CompressError;
use iiet_files::FilesError;

/// The errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// A file that cannot be opened, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A manifest, or a file that differs from it.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A file that does not begin with GGUF's magic bytes.
    #[error("{}: begins with {found:?}; allowed: \"GGUF\"", path.display())]
    Magic {
        /// The file.
        path: PathBuf,
        /// Its first bytes.
        found: String,
    },
    /// A GGUF file of a version that is not read.
    #[error("{}: GGUF version {found}; allowed: 2 and 3", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A GGUF file for big-endian machines.
    #[error("{}: big-endian GGUF (version {version}); allowed: little-endian", path.display())]
    BigEndian {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// A header that breaks the format.
    #[error("{}: byte {at}: {reason}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        at: u64,
        /// What was found and what is allowed.
        reason: String,
    },
    /// A tensor whose type, shape or place in the file is wrong.
    #[error("{}: tensor {name}: {reason}", path.display())]
    Tensor {
        /// The file or directory.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What was found and what is allowed.
        reason: String,
    },
    /// A tensor whose rows cannot be divided into blocks.
    #[error(
        "tensor {name}: rows of {width} elements; allowed for {kind}: multiples of {block}. F16, BF16 and F32 \
         take any width"
    )]
    RowWidth {
        /// The tensor.
        name: String,
        /// Elements of a row.
        width: u64,
        /// The type it should be stored in.
        kind: &'static str,
        /// Elements of a block.
        block: u64,
    },
    /// The `quantization_config` of a directory that cannot be read.
    #[error("{}: {source}", path.display())]
    Quantization {
        /// The `config.json`.
        path: PathBuf,
        /// The key, what was found and what is allowed.
        source: CompressError,
    },
    /// A packed matrix that cannot be read.
    #[error("{}: tensor {name}: {source}", path.display())]
    Packed {
        /// The file or directory.
        path: PathBuf,
        /// The matrix.
        name: String,
        /// What was found and what is allowed.
        source: CompressError,
    },
    /// A value that a tensor type cannot represent.
    #[error(
        "tensor {name}: element {element} is {value}; allowed: finite values in the range of {kind}"
    )]
    Value {
        /// The tensor.
        name: String,
        /// Index of the element, counted along the rows.
        element: usize,
        /// Its value.
        value: f32,
        /// The type it should be stored in.
        kind: &'static str,
    },
    /// Metadata that are absent, of another type, or out of range.
    #[error("{key}: found {found}; {allowed}")]
    Metadata {
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// The allowed values.
        allowed: String,
    },
    /// A `config.json` of a model that GGUF's `llama` cannot represent.
    #[error("{}: {key}: found {found}; {allowed}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// The allowed values.
        allowed: String,
    },
    /// A `config.json` or another file that is not the JSON it should be.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The reason, with line and column.
        source: serde_json::Error,
    },
    /// A safetensors header that breaks the format.
    #[error("{}: {reason}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What was found and what is allowed.
        reason: String,
    },
    /// A tokenizer that cannot be converted without changing its tokens.
    #[error("tokenizer: {key}: found {found}; {allowed}")]
    Tokenizer {
        /// The part of the tokenizer.
        key: String,
        /// What was found there.
        found: String,
        /// The allowed values.
        allowed: String,
    },
}

impl GgufError {
    /// For `map_err`.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// For `map_err`.
    pub(crate) fn json(path: impl Into<PathBuf>) -> impl FnOnce(serde_json::Error) -> Self {
        let path = path.into();
        move |source| Self::Json { path, source }
    }

    /// For `map_err`.
    pub(crate) fn packed(
        path: impl Into<PathBuf>,
        name: impl Into<String>,
    ) -> impl FnOnce(CompressError) -> Self {
        let (path, name) = (path.into(), name.into());
        move |source| Self::Packed { path, name, source }
    }

    pub(crate) fn tokenizer(
        key: impl Into<String>,
        found: impl ToString,
        allowed: impl Into<String>,
    ) -> Self {
        Self::Tokenizer {
            key: key.into(),
            found: found.to_string(),
            allowed: allowed.into(),
        }
    }

    pub(crate) fn metadata(
        key: impl Into<String>,
        found: impl ToString,
        allowed: impl Into<String>,
    ) -> Self {
        Self::Metadata {
            key: key.into(),
            found: found.to_string(),
            allowed: allowed.into(),
        }
    }
}
