//! The learning rate schedule.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::TrainSection;

/// The schedule after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Half a cosine down to the final rate (Loshchilov and Hutter, arXiv 1608.03983).
    #[default]
    Cosine,
    /// Warm-up, stable, decay: constant, then linear down to the final rate over the last `decay`
    /// share of the steps (Hu et al., *MiniCPM*, arXiv 2404.06395).
    Wsd,
    /// The inverse square root of the step, from the warm-up's end on (Vaswani et al., arXiv 1706.03762);
    /// there is no final rate.
    #[serde(rename = "inverse_sqrt")]
    InverseSqrt,
}

/// A schedule with its parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct LearningRate {
    kind: ScheduleKind,
    peak: f64,
    last: f64,
    warmup: u64,
    steps: u64,
    decay_from: u64,
}

impl LearningRate {
    /// The schedule of a configuration.
    pub fn new(train: &TrainSection) -> Self {
        let decay_steps = (train.decay * train.steps as f64).round() as u64;
        Self {
            kind: train.schedule,
            peak: train.lr,
            last: train.lr * train.final_lr,
            warmup: train.warmup,
            steps: train.steps,
            decay_from: train.warmup.max(train.steps.saturating_sub(decay_steps)),
        }
    }

    /// The learning rate of the update at step number `step`, counted from 1.
    ///
    /// Linear up to the peak at step `warmup`; the final rate at the last step.
    pub fn at(&self, step: u64) -> f64 {
        if step <= self.warmup {
            return self.peak * step as f64 / self.warmup as f64;
        }
        let progress = |from: u64| match step <= from || self.steps <= from {
            true => 0.0,
            false => ((step - from) as f64 / (self.steps - from) as f64).min(1.0),
        };
        let share = match self.kind {
            ScheduleKind::Cosine => (1.0 + (PI * progress(self.warmup)).cos()) / 2.0,
            ScheduleKind::Wsd => 1.0 - progress(self.decay_from),
            ScheduleKind::InverseSqrt => {
                return self.peak * (self.warmup.max(1) as f64 / step as f64).sqrt();
            }
        };
        self.last + (self.peak - self.last) * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(kind: ScheduleKind) -> LearningRate {
        LearningRate {
            kind,
            peak: 1.0,
            last: 0.1,
            warmup: 10,
            steps: 110,
            decay_from: 90,
        }
    }

    fn assert_close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a}, expected {b}");
    }

    #[test]
    fn cosine_equals_values_computed_by_hand() {
        let rate = rate(ScheduleKind::Cosine);
        assert_close(rate.at(1), 0.1);
        assert_close(rate.at(10), 1.0);
        assert_close(rate.at(60), 0.55);
        assert_close(rate.at(110), 0.1);
        assert_close(rate.at(1000), 0.1);
    }

    #[test]
    fn inverse_square_root_equals_values_computed_by_hand() {
        let rate = rate(ScheduleKind::InverseSqrt);
        assert_close(rate.at(5), 0.5);
        assert_close(rate.at(10), 1.0);
        assert_close(rate.at(40), 0.5);
        assert_close(rate.at(1000), 0.1);
    }

    #[test]
    fn warm_up_stable_decay_equals_values_computed_by_hand() {
        let rate = rate(ScheduleKind::Wsd);
        assert_close(rate.at(5), 0.5);
        assert_close(rate.at(90), 1.0);
        assert_close(rate.at(100), 0.55);
        assert_close(rate.at(110), 0.1);
    }
}
