//! Errors of quantising, pruning and reading packed matrices.

/// The errors of this crate.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CompressError {
    /// A number of bits per weight that is not supported.
    #[error("{found} bits per weight; allowed are 4 and 8")]
    Bits {
        /// The number found.
        found: u64,
    },
    /// A group size that is not supported.
    #[error("groups of {found} weights; allowed are 32, 64 and 128")]
    Group {
        /// The size found.
        found: u64,
    },
    /// An input width that groups do not divide.
    #[error("an input width of {d_in} is not a multiple of the group size, {group}")]
    Width {
        /// The input width.
        d_in: usize,
        /// The group size.
        group: usize,
    },
    /// A matrix without entries, or with more than can be addressed.
    #[error("a matrix of {d_out} x {d_in}; both must be at least 1, and their product below 2^48")]
    Size {
        /// Output width.
        d_out: usize,
        /// Input width.
        d_in: usize,
    },
    /// A slice of the wrong length.
    #[error("{what}: {found} entries, expected {expected}")]
    Length {
        /// What the slice holds.
        what: &'static str,
        /// The length found.
        found: usize,
        /// The length that the other arguments imply.
        expected: usize,
    },
    /// A stored tensor of the wrong shape or size in bytes.
    #[error("{tensor}: {found}, expected {expected}")]
    Stored {
        /// The tensor's name.
        tensor: &'static str,
        /// What was found.
        found: String,
        /// What is allowed.
        expected: String,
    },
    /// A stored or given value outside its range.
    #[error("{what} {index}: {found}, allowed is {allowed}")]
    Value {
        /// What the values are.
        what: &'static str,
        /// The flat index of the first such value.
        index: usize,
        /// The value found.
        found: String,
        /// The values that are allowed.
        allowed: &'static str,
    },
    /// A `quantization_config` that is not supported.
    #[error("quantization_config: {key} is {found}; allowed: {allowed}")]
    Config {
        /// The key with its path.
        key: String,
        /// Its value.
        found: String,
        /// The values that are allowed.
        allowed: &'static str,
    },
    /// Second moments that cannot be factorised.
    #[error(
        "the damped second moments are not positive definite: pivot {pivot:e} at input {column} with damping \
         {damping}; use a larger damping or more calibration tokens"
    )]
    NotPositiveDefinite {
        /// The input.
        column: usize,
        /// The pivot, which should be positive.
        pivot: f64,
        /// The damping in use.
        damping: f64,
    },
    /// An option outside its range.
    #[error("{option} is {found}; allowed is {allowed}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// Its value.
        found: String,
        /// The values that are allowed.
        allowed: &'static str,
    },
}

/// Rejects a slice whose length is not the expected one.
pub(crate) fn check_length(
    what: &'static str,
    found: usize,
    expected: usize,
) -> Result<(), CompressError> {
    match found == expected {
        true => Ok(()),
        false => Err(CompressError::Length {
            what,
            found,
            expected,
        }),
    }
}

/// Rejects non-finite values.
pub(crate) fn check_finite(what: &'static str, values: &[f32]) -> Result<(), CompressError> {
    match values.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(index) => Err(CompressError::Value {
            what,
            index,
            found: values[index].to_string(),
            allowed: "a finite number",
        }),
    }
}

/// Rejects a matrix without entries, or one whose number of entries could overflow later arithmetic.
pub(crate) fn check_size(d_out: usize, d_in: usize) -> Result<(), CompressError> {
    let entries = (d_out as u128) * (d_in as u128);
    match entries > 0 && entries < 1 << 48 {
        true => Ok(()),
        false => Err(CompressError::Size { d_out, d_in }),
    }
}
