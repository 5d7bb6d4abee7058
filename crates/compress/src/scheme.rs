//! How weights are quantised: bits, groups and zero points.
//!
//! A group of weights that follow one another along the input shares a scale s and a zero point z:
//!
//! ```text
//! w = s (q - z),   q and z in 0 .. 2^bits
//! ```
//!
//! Without zero points (symmetric) z is 2^(bits - 1).

use half::f16;

use crate::CompressError;
use crate::error::check_size;

/// Bits per weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// Two weights per byte.
    Four,
    /// One weight per byte.
    Eight,
}

impl Bits {
    /// 4 or 8.
    pub const fn count(self) -> usize {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    /// The largest code: 15 or 255.
    pub const fn max_code(self) -> u8 {
        match self {
            Self::Four => 15,
            Self::Eight => 255,
        }
    }

    /// The zero point of a symmetric group: 8 or 128.
    pub const fn middle(self) -> u8 {
        match self {
            Self::Four => 8,
            Self::Eight => 128,
        }
    }
}

/// How a matrix is quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheme {
    bits: Bits,
    group: usize,
    symmetric: bool,
}

impl Scheme {
    /// `bits` per weight, 4 or 8; `group` weights along the input share a scale, 32, 64 or 128 of them; `symmetric`
    /// groups have no zero point.
    ///
    /// # Errors
    ///
    /// For other bits and groups.
    pub fn new(bits: u64, group: u64, symmetric: bool) -> Result<Self, CompressError> {
        let bits = match bits {
            4 => Bits::Four,
            8 => Bits::Eight,
            found => return Err(CompressError::Bits { found }),
        };
        let group = match group {
            32 => 32,
            64 => 64,
            128 => 128,
            found => return Err(CompressError::Group { found }),
        };
        Ok(Self {
            bits,
            group,
            symmetric,
        })
    }

    /// Bits per weight.
    pub fn bits(self) -> Bits {
        self.bits
    }

    /// Weights that share a scale.
    pub fn group(self) -> usize {
        self.group
    }

    /// Whether groups have no zero point.
    pub fn symmetric(self) -> bool {
        self.symmetric
    }

    /// Bytes of the codes of one row.
    pub fn row_bytes(self, d_in: usize) -> usize {
        d_in / 8 * self.bits.count()
    }

    /// Rejects a matrix that has no entries or whose input width groups do not divide. Padding is not an option:
    /// readers of the format take the width of the packed rows from the matrix' shape.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn check(self, d_out: usize, d_in: usize) -> Result<(), CompressError> {
        check_size(d_out, d_in)?;
        match d_in.is_multiple_of(self.group) {
            true => Ok(()),
            false => Err(CompressError::Width {
                d_in,
                group: self.group,
            }),
        }
    }
}

/// How a product with a quantised matrix treats its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activations {
    /// As they are, with sums in f32.
    #[default]
    F32,
    /// Rounded to integers of 8 bits, `x = t u` with u in -127 .. 127 and `t = max |x| / 127` of each token and group
    /// of inputs that share a scale of the weights. The error is at most 1/254 of the group's largest input.
    Int8,
}

impl Activations {
    /// 8, or none for inputs that are not rounded.
    pub const fn bits(self) -> Option<usize> {
        match self {
            Self::F32 => None,
            Self::Int8 => Some(8),
        }
    }
}

/// The values that a group's codes stand for: `scale (code - zero)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// The distance of neighbouring values.
    pub scale: f16,
    /// The code of the value 0.
    pub zero: u8,
}

impl Grid {
    /// The code of the value nearest to `w`, which must be finite; ties go to the even code, as in
    /// compressed-tensors.
    #[inline(always)]
    pub fn code(self, bits: Bits, w: f32) -> u8 {
        let code = (w / self.scale.to_f32() + f32::from(self.zero)).round_ties_even();
        code.clamp(0.0, f32::from(bits.max_code())) as u8
    }

    /// The value of a code. It is exact.
    #[inline(always)]
    pub fn value(self, code: u8) -> f32 {
        self.scale.to_f32() * (f32::from(code) - f32::from(self.zero))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_name_what_they_reject() {
        let error = Scheme::new(3, 128, true).unwrap_err();
        assert_eq!(error.to_string(), "3 bits per weight; allowed are 4 and 8");
        let error = Scheme::new(4, 100, true).unwrap_err();
        assert_eq!(error, CompressError::Group { found: 100 });
        let scheme = Scheme::new(4, 128, true).unwrap();
        let error = scheme.check(2, 1376).unwrap_err();
        assert_eq!(
            error.to_string(),
            "an input width of 1376 is not a multiple of the group size, 128"
        );
        assert_eq!(Scheme::new(4, 32, true).unwrap().check(2, 1376), Ok(()));
        assert!(scheme.check(0, 128).is_err());
        assert!(scheme.check(usize::MAX, 128).is_err());
    }

    #[test]
    fn codes_are_nearest_and_clamped() {
        let grid = Grid {
            scale: f16::from_f32(0.5),
            zero: 8,
        };
        for (w, code, value) in [
            (0.0, 8, 0.0),
            (0.74, 9, 0.5),
            // 1.5 and 2.5 steps are both rounded to 2.
            (0.75, 10, 1.0),
            (1.25, 10, 1.0),
            (-9.0, 0, -4.0),
            (9.0, 15, 3.5),
        ] {
            assert_eq!(grid.code(Bits::Four, w), code, "{w}");
            assert_eq!(grid.value(code), value);
        }
    }
}
