//! `train.iterations`: corrections drawn anew for each step.
//!
//! ```text
//! r = F^-1(u)      u uniform in [0, 1), from blake3(seed, step)
//! ```
//!
//! Geiping et al. (*Scaling up test-time compute with latent reasoning*, arXiv 2502.05171) draw the
//! number of repeats so that a model works with any; Parcae (arXiv 2604.12946) from a Poisson
//! distribution. All layers that take corrections take as many.

use iiet_ode::{IterationSchedule, Options, SolverConfig};
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// How the corrections of a step are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "draw", rename_all = "lowercase", deny_unknown_fields)]
pub enum DrawnIterations {
    /// Each number of corrections equally often.
    Uniform {
        /// The least.
        from: usize,
        /// The most.
        to: usize,
    },
    /// By a Poisson distribution.
    Poisson {
        /// Its mean, before the bound.
        mean: f64,
        /// What more is cut to.
        most: usize,
    },
}

impl DrawnIterations {
    /// The corrections of a step.
    pub fn at(&self, seed: u64, step: u64) -> usize {
        let mut hash = blake3::Hasher::new();
        hash.update(b"corrections 1");
        hash.update(&seed.to_le_bytes());
        hash.update(&step.to_le_bytes());
        let mut bits = [0; 8];
        hash.finalize_xof().fill(&mut bits);
        // The upper 53 bits: all numbers are exact and below 1.
        let u = (u64::from_le_bytes(bits) >> 11) as f64 / (1u64 << 53) as f64;
        match *self {
            Self::Uniform { from, to } => from + (u * (to - from + 1) as f64) as usize,
            Self::Poisson { mean, most } => {
                let (mut r, mut p) = (0, (-mean).exp());
                let mut sum = p;
                while u >= sum && r < most {
                    r += 1;
                    p *= mean / r as f64;
                    sum += p;
                }
                r
            }
        }
    }

    /// The most corrections that can be drawn.
    pub fn most(&self) -> usize {
        match *self {
            Self::Uniform { to, .. } => to,
            Self::Poisson { most, .. } => most,
        }
    }

    /// A solver that takes `r` corrections in each layer that takes any.
    pub(crate) fn with_corrections(solver: &SolverConfig, layers: usize, r: usize) -> SolverConfig {
        let Some(schedule) = solver.iterations() else {
            return solver.clone();
        };
        let nominal = schedule.per_layer(layers).into_iter();
        let drawn = nominal.map(|corrections| if corrections > 0 { r } else { 0 });
        let schedule = IterationSchedule::PerLayer(drawn.collect());
        solver.clone().with_iterations(schedule)
    }

    /// Checks the draw for a model with these solvers.
    pub(super) fn validate(&self, solvers: &[Option<&SolverConfig>]) -> Result<(), TrainError> {
        let refuse = |found: String, allowed: &str| {
            Err(TrainError::Value {
                key: "train.iterations",
                found,
                allowed: format!("allowed: {allowed}"),
            })
        };
        let known = || solvers.iter().flatten();
        if known().all(|solver| solver.iterations().is_none()) {
            let names: Vec<&str> = known().map(|solver| solver.name()).collect();
            let found = format!("given with the solver {}", names.join(" and "));
            return refuse(found, "a solver that takes corrections");
        }
        match *self {
            _ if self.most() > IterationSchedule::MAX_CORRECTIONS => {
                let allowed = format!("at most {}", IterationSchedule::MAX_CORRECTIONS);
                refuse(self.most().to_string(), &allowed)
            }
            Self::Uniform { from, to } if from > to => {
                refuse(format!("from {from} to {to}"), "from at most to")
            }
            // Beyond, the probability of 0 is no number that could be summed on from.
            Self::Poisson { mean, .. } if !(mean > 0.0 && mean <= 500.0) => {
                refuse(format!("a mean of {mean}"), "a mean above 0, at most 500")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frequencies(drawn: DrawnIterations) -> Vec<f64> {
        let mut counts = vec![0.0; drawn.most() + 1];
        for step in 0..20_000 {
            counts[drawn.at(3, step)] += 1.0 / 20_000.0;
        }
        counts
    }

    #[test]
    fn frequencies_are_those_of_the_distribution() {
        let uniform = frequencies(DrawnIterations::Uniform { from: 1, to: 4 });
        for (r, expected) in [0.0, 0.25, 0.25, 0.25, 0.25].into_iter().enumerate() {
            assert!((uniform[r] - expected).abs() < 0.015, "{uniform:?}");
        }
        // e^-2 2^r / r!, and 1 less the others for all from 4 on.
        let poisson = frequencies(DrawnIterations::Poisson { mean: 2.0, most: 4 });
        for (r, expected) in [0.1353, 0.2707, 0.2707, 0.1804, 0.1429]
            .into_iter()
            .enumerate()
        {
            assert!((poisson[r] - expected).abs() < 0.015, "{poisson:?}");
        }
    }

    #[test]
    fn draws_follow_from_seed_and_step_alone() {
        let drawn = DrawnIterations::Uniform { from: 0, to: 7 };
        let of = |seed| -> Vec<usize> { (0..12).map(|step| drawn.at(seed, step)).collect() };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn layers_without_corrections_stay_without() {
        let solver: SolverConfig = toml::from_str::<toml::Table>(
            "solver = { name = 'implicit_euler', iterations = [0, 3, 1] }",
        )
        .unwrap()["solver"]
            .clone()
            .try_into()
            .unwrap();
        let drawn = DrawnIterations::with_corrections(&solver, 3, 5);
        assert_eq!(drawn.iterations().unwrap().per_layer(3), [0, 5, 5]);
        let plain = SolverConfig::default();
        assert_eq!(DrawnIterations::with_corrections(&plain, 3, 5), plain);
    }
}
