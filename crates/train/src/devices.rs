//! The devices of a run, in one process or several, and how their gradients are summed.

use std::fmt::Debug;

use burn::tensor::{Device, Tensor};

use crate::{Parallel, Ranks, TrainError, TrainSection};

/// The sum over devices.
pub trait AllReduce: Debug + Send + Sync {
    /// Given one tensor on each device, returns their sum on each of these devices, in the same order.
    ///
    /// # Shapes
    ///
    /// - input and output: `[n]` each
    fn sum(&self, of_each: Vec<Tensor<1>>) -> Vec<Tensor<1>>;
}

/// One device, or several that share the micro-batches of each step, in one process or several.
#[derive(Debug)]
pub struct Devices {
    first: Device,
    others: Vec<Device>,
    all_reduce: Box<dyn AllReduce>,
    ranks: Ranks,
}

impl Devices {
    /// A single device.
    pub fn one(device: Device) -> Self {
        Self::several(device, Vec::new(), Alone)
    }

    /// Several devices. The first also validates, samples and writes checkpoints.
    pub fn several(
        first: Device,
        others: Vec<Device>,
        all_reduce: impl AllReduce + 'static,
    ) -> Self {
        Self {
            first,
            others,
            all_reduce: Box::new(all_reduce),
            ranks: Ranks::default(),
        }
    }

    /// These devices in each of several processes, which have as many each.
    pub fn across(self, ranks: Ranks) -> Self {
        Self { ranks, ..self }
    }

    /// The processes.
    pub fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    /// The number of processes, and of their devices.
    pub fn parallel(&self) -> Parallel {
        Parallel {
            ranks: self.ranks.size(),
            devices_per_rank: self.all().count(),
        }
    }

    /// The device that also validates, samples and writes checkpoints.
    pub fn first(&self) -> &Device {
        &self.first
    }

    /// The devices other than the first.
    pub(crate) fn others(&self) -> &[Device] {
        &self.others
    }

    /// All devices, the first one first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Device> {
        [&self.first].into_iter().chain(&self.others)
    }

    /// The sum over these devices.
    pub(crate) fn all_reduce(&self) -> &dyn AllReduce {
        &*self.all_reduce
    }

    /// Rejects a number of micro-batches that cannot be divided evenly: the other devices would wait for the
    /// last one.
    ///
    /// # Errors
    ///
    /// [`TrainError::Value`].
    pub fn refuse_uneven(&self, train: &TrainSection) -> Result<(), TrainError> {
        self.parallel().micro_batches(train).map(drop)
    }
}

/// The sum for a single device.
#[derive(Debug)]
struct Alone;

impl AllReduce for Alone {
    fn sum(&self, of_each: Vec<Tensor<1>>) -> Vec<Tensor<1>> {
        of_each
    }
}

/// Burn's collective operations: NCCL, between the CUDA devices of one machine.
///
/// The devices must differ; on any other backend the operation panics.
#[cfg(feature = "cuda")]
#[derive(Debug, Clone, Copy)]
pub struct Collective;

#[cfg(feature = "cuda")]
impl AllReduce for Collective {
    fn sum(&self, of_each: Vec<Tensor<1>>) -> Vec<Tensor<1>> {
        use burn::tensor::distributed::{CollectiveTensor, ReduceOperation, all_reduce};

        let devices: Vec<Device> = of_each.iter().map(Tensor::device).collect();
        // Queued on every device before waiting for any, because none completes before all have started.
        let queued: Vec<CollectiveTensor<1>> = of_each
            .into_iter()
            .map(|part| all_reduce(part, ReduceOperation::Sum, devices.clone()))
            .collect();
        queued.into_iter().map(CollectiveTensor::resolve).collect()
    }
}
