//! How the micro-batches of a step are shared, and what is exchanged for it.
//!
//! ```text
//! N ranks, P parameters, b bytes for each gradient, sent by each rank and step:
//! gradients, reduce-scatter and all-gather of their sums     2 (N - 1) / N * b P      train.shard = "none"
//! gradients, reduce-scatter; updated weights, all-gather     (N - 1) / N * (b + 4) P  train.shard = "optimizer"
//! ```
//!
//! These are the bytes of a ring (Patarasuk and Yuan, *Bandwidth Optimal All-reduce Algorithms for Clusters of
//! Workstations*, 2009), and the least possible. A sharded optimiser is stage 1 of Rajbhandari et al., *ZeRO*
//! (arXiv 1910.02054).

use serde::Serialize;

use crate::{Shard, TrainError, TrainSection};

/// Bytes of a bucket of gradients in f32, as PyTorch's DistributedDataParallel has them.
pub(crate) const BUCKET: u64 = 25 << 20;
/// Buckets that are exchanged at a time.
pub(crate) const UNDER_WAY: u64 = 4;

/// Processes and their devices, each of which has a copy of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Parallel {
    /// Processes.
    pub ranks: usize,
    /// Devices of each.
    pub devices_per_rank: usize,
}

impl Parallel {
    /// One process with such a number of devices.
    pub fn devices(devices_per_rank: usize) -> Self {
        Self {
            ranks: 1,
            devices_per_rank,
        }
    }

    /// The devices of all ranks.
    pub fn count(&self) -> usize {
        self.ranks.saturating_mul(self.devices_per_rank)
    }

    /// Micro-batches of each device in a step.
    ///
    /// # Errors
    ///
    /// [`TrainError::Value`] with the nearest allowed values, if they cannot be divided evenly.
    pub fn micro_batches(&self, train: &TrainSection) -> Result<usize, TrainError> {
        let (accumulation, count) = (train.accumulation, self.count());
        if count > 0 && accumulation.is_multiple_of(count) {
            return Ok(accumulation / count);
        }
        let below = accumulation / count.max(1) * count;
        let above = below.saturating_add(count);
        let nearest = match below {
            0 => format!("{above} is the least"),
            _ => format!("{below} and {above} are the nearest"),
        };
        Err(TrainError::Value {
            key: "train.accumulation",
            found: accumulation.to_string(),
            allowed: format!(
                "allowed: a multiple of {count}, the number of devices of all ranks; {nearest}"
            ),
        })
    }
}

/// Bytes that each rank sends in a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sent {
    /// Gradients, and their sums.
    pub gradients: u64,
    /// Updated weights.
    pub weights: u64,
}

impl Sent {
    /// For a model with so many parameters.
    pub fn of(parameters: u64, train: &TrainSection, ranks: usize) -> Self {
        let (n, p) = (ranks.max(1) as u128, u128::from(parameters));
        let share = |bytes: u128| ((n - 1) * p * bytes / n) as u64;
        let gradient = train.transfer.bytes() as u128;
        match train.shard {
            Shard::None => Self {
                gradients: share(2 * gradient),
                weights: 0,
            },
            Shard::Optimizer => Self {
                gradients: share(gradient),
                weights: share(size_of::<f32>() as u128),
            },
        }
    }

    /// The sum.
    pub fn total(&self) -> u64 {
        self.gradients.saturating_add(self.weights)
    }
}
