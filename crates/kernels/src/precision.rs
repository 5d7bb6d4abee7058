//! The float types of weights, activations, caches and files, and the values that always stay in f32.
//!
//! Half precision saves memory, and GPUs multiply it several times as fast, but sums lose small terms: 1 +
//! 2^-9 is 1 in bf16. So the composed bodies of this crate compute everything except matrix products in f32
//! and round the result: norms, softmax, gates, rotations, weighted sums. Losses and gradients to parameters
//! stay in f32 (Micikevicius et al., *Mixed Precision Training*, arXiv 1710.03740, section 3).

use std::fmt;
use std::str::FromStr;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{DType, Device, FloatDType, Tensor};

/// A float type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Precision {
    /// Four bytes, 24 bits of significand.
    #[default]
    F32,
    /// Two bytes, 8 bits of significand, the range of f32.
    Bf16,
    /// Two bytes, 11 bits of significand, at most 65504.
    F16,
}

impl Precision {
    /// All precisions.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::F16];

    /// The name in configurations and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// Bytes per value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// The data type of Burn's tensors.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }

    /// A comma-separated list of the names for which `works` holds.
    pub fn names(works: impl Fn(Self) -> bool) -> String {
        let of = Self::ALL.into_iter().filter(|precision| works(*precision));
        of.map(Self::name).collect::<Vec<_>>().join(", ")
    }

    /// Whether a device computes in this type; some devices only store it.
    pub fn works_on(self, device: &Device) -> bool {
        device.supports_dtype(self.dtype())
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is not a [`Precision`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownPrecision(String);

impl fmt::Display for UnknownPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let allowed = Precision::names(|_| true);
        write!(f, "unknown precision {:?}; allowed: {allowed}", self.0)
    }
}

impl std::error::Error for UnknownPrecision {}

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(text: &str) -> Result<Self, UnknownPrecision> {
        let found = Self::ALL.into_iter().find(|of| of.name() == text);
        found.ok_or_else(|| UnknownPrecision(text.to_owned()))
    }
}

/// A half-precision tensor in f32, for sums; any other tensor unchanged.
pub fn in_f32<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match x.dtype() {
        DType::F16 | DType::BF16 => x.cast(FloatDType::F32),
        _ => x,
    }
}

/// The same as [`in_f32`], for a backend's own tensor.
pub(crate) fn widened<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    match x.dtype() {
        DType::F16 | DType::BF16 => B::float_cast(x, FloatDType::F32),
        _ => x,
    }
}

/// `x` in another type, rounded if necessary.
pub(crate) fn rounded<B: Backend>(x: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if x.dtype() == dtype {
        x
    } else {
        B::float_cast(x, dtype.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_parse_and_others_fail() {
        for precision in Precision::ALL {
            assert_eq!(precision.name().parse(), Ok(precision));
        }
        let error = "fp16".parse::<Precision>().unwrap_err().to_string();
        assert_eq!(error, "unknown precision \"fp16\"; allowed: f32, bf16, f16");
    }
}
