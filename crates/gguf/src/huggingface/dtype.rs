//! The types of tensors in safetensors files.

use crate::tensors::TensorType;

/// The types that are read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dtype {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// The upper half of single precision.
    Bf16,
    /// The codes and zero points of packed matrices, several to a number.
    I32,
    /// The shapes of packed matrices.
    I64,
}

impl Dtype {
    const ALL: [Self; 5] = [Self::F32, Self::F16, Self::Bf16, Self::I32, Self::I64];

    /// The name in files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::I32 => "I32",
            Self::I64 => "I64",
        }
    }

    /// The type with a name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Bytes of an element.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::I64 => 8,
        }
    }

    /// The same type in GGUF; none for integers.
    pub(super) fn floats(self) -> Option<TensorType> {
        match self {
            Self::F32 => Some(TensorType::F32),
            Self::F16 => Some(TensorType::F16),
            Self::Bf16 => Some(TensorType::Bf16),
            Self::I32 | Self::I64 => None,
        }
    }
}
