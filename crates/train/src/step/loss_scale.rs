//! Loss scaling, for f16's limited range.
//!
//! Values below 6e-8 are zero in f16, and values above 65504 are infinite. So the loss is multiplied by a
//! power of two, and the gradients to parameters, which are f32, are divided by it. If they are not finite,
//! the scale is halved and the step is repeated on the same tokens; after [`PATIENCE`] successful steps it is
//! doubled (Micikevicius et al., *Mixed Precision Training*, arXiv 1710.03740, section 3.2).
//!
//! f32 and bf16, which have the same range, need no loss scale.

use iiet_model::Precision;
use serde::{Deserialize, Serialize};

/// The initial scale. The loss is a sum over a micro-batch's tokens, so even a scale of 1 is thousands of
/// times that of a mean.
const FIRST: f64 = 64.0;
const LARGEST: f64 = (1u64 << 32) as f64;
/// Below this scale, infinite gradients have another cause.
const SMALLEST: f64 = 1.0 / (1u64 << 20) as f64;
/// Number of successful steps before the scale is doubled.
const PATIENCE: u64 = 1000;

/// The loss scale.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LossScale {
    /// A power of two.
    pub(crate) scale: f64,
    /// Number of successful steps with it.
    steps: u64,
}

impl LossScale {
    /// The initial scale, if the precision needs one.
    pub(crate) fn of(precision: Precision) -> Option<Self> {
        (precision == Precision::F16).then_some(Self {
            scale: FIRST,
            steps: 0,
        })
    }

    /// To be called when the gradients were finite.
    pub(crate) fn held(&mut self) {
        self.steps += 1;
        if self.steps == PATIENCE && self.scale < LARGEST {
            *self = Self {
                scale: 2.0 * self.scale,
                steps: 0,
            };
        }
    }

    /// To be called when the gradients were not finite. Returns whether to retry with the smaller scale.
    pub(crate) fn retreat(&mut self) -> bool {
        if self.scale <= SMALLEST {
            return false;
        }
        *self = Self {
            scale: 0.5 * self.scale,
            steps: 0,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_after_patience_steps_and_halves_at_once() {
        assert_eq!(LossScale::of(Precision::F32), None);
        assert_eq!(LossScale::of(Precision::Bf16), None);
        let mut scale = LossScale::of(Precision::F16).unwrap();
        for _ in 0..PATIENCE - 1 {
            scale.held();
        }
        assert_eq!(scale.scale, FIRST);
        scale.held();
        assert_eq!(scale.scale, 2.0 * FIRST);
        assert!(scale.retreat());
        assert_eq!((scale.scale, scale.steps), (FIRST, 0));
        while scale.retreat() {}
        assert_eq!(scale.scale, SMALLEST);
        for _ in 0..100 * PATIENCE {
            scale.held();
        }
        assert_eq!(scale.scale, LARGEST);
    }
}
