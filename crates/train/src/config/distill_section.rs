//! `[distill]`: the teacher, and how its terms enter the loss.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// `[distill]`: `loss = a CE + b T^2 KL(teacher || student) + gamma SmoothL1`, each per token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistillSection {
    /// The teacher's model directory.
    pub teacher: PathBuf,
    /// blake3 of its configuration and weights, in hexadecimal: a resumed run has the same teacher.
    pub teacher_hash: String,
    /// `a`, the weight of the cross-entropy with the text.
    #[serde(default = "one")]
    pub cross_entropy: f64,
    /// `b`, the weight of the divergence from the teacher.
    #[serde(default = "one")]
    pub divergence: f64,
    /// `T`, which softens both distributions in the divergence.
    #[serde(default = "one")]
    pub temperature: f64,
    /// `gamma`, the weight of the distance between the layers' outputs; 5 in the paper where it is
    /// used.
    #[serde(default)]
    pub smooth_l1: f64,
}

fn one() -> f64 {
    1.0
}

impl DistillSection {
    pub(super) fn validate(&self) -> Result<(), TrainError> {
        let refuse = |key, found: f64, allowed: &str| {
            Err(TrainError::Value {
                key,
                found: found.to_string(),
                allowed: allowed.to_owned(),
            })
        };
        for (key, value) in [
            ("distill.cross_entropy", self.cross_entropy),
            ("distill.divergence", self.divergence),
            ("distill.smooth_l1", self.smooth_l1),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return refuse(key, value, "allowed: finite, 0 or above");
            }
        }
        // The hidden states' term is what the backward pass starts from.
        if self.cross_entropy + self.divergence == 0.0 {
            let allowed = "allowed: above 0, unless distill.divergence is";
            return refuse("distill.cross_entropy", self.cross_entropy, allowed);
        }
        if !(0.01..=100.0).contains(&self.temperature) {
            let allowed = "allowed: 0.01 to 100";
            return refuse("distill.temperature", self.temperature, allowed);
        }
        Ok(())
    }
}
