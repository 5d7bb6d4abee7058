//! The memory of a run by kind, its check before a run starts, and an allocator setting.

use burn::module::Param;
use burn::tensor::{Device, Tensor};
use iiet_model::{ParameterVisitor, Role, available_memory, visit_parameters};
use serde::Serialize;

use crate::parallel::{BUCKET, UNDER_WAY};
use crate::{
    Footprint, OptimizerKind, Parallel, RunConfig, Shard, TrainError, TrainSection, TrainedModel,
    Vocabulary,
};

/// What a process takes besides: its code, its threads, the tokenizer, and buffers of matrix products.
const PROGRAM: u64 = 52 << 20;
/// The share of all else that is lost between the blocks of the heap.
const LOST: u64 = 32;

/// The memory of one device of a run by kind, in bytes.
///
/// On a host, the peak of a process with one device. It has been within a tenth of measured ones (docs/scaling.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RunMemory {
    /// Weights in f32.
    pub weights: u64,
    /// Their copy in half precision.
    pub rounded: u64,
    /// Gradients in f32: those of a micro-batch, and the sum to which they are added.
    pub gradients: u64,
    /// The optimiser's moments, or this rank's part of them.
    pub moments: u64,
    /// What a micro-batch keeps for its backward pass.
    pub activations: u64,
    /// Buckets of gradients between ranks, in host memory.
    pub buckets: u64,
    /// What the objective needs, such as a teacher.
    pub objective: u64,
    /// The program itself, and what the heap loses; in host memory.
    pub program: u64,
    /// The part of gradients and activations that is never there at once.
    pub exclusive: u64,
    /// The copy of the moments that is taken to write a checkpoint, after a step; in host memory.
    pub checkpoint: u64,
}

impl RunMemory {
    /// That of a run whose ranks and devices share the micro-batches, `micro_batches` for each device.
    ///
    /// # Errors
    ///
    /// [`TrainError`] if the model's configuration is invalid.
    pub(crate) fn of_run<M: TrainedModel>(
        config: &RunConfig,
        vocab_size: usize,
        footprint: Footprint,
        (parallel, micro_batches): (Parallel, usize),
        device: &Device,
    ) -> Result<Self, TrainError> {
        let train = &config.train;
        let vocabulary = Vocabulary {
            size: vocab_size,
            document_end: None,
        };
        // The final solver is assumed to be the most expensive one.
        let wanted = M::of_run(config, vocabulary, train.steps);
        let mut model = M::empty(&wanted, device)?;
        if let Some(drawn) = &train.iterations {
            model = model.with_corrections(drawn.most());
        }
        let memory = model.training_memory(train, config.model.seq_len, micro_batches);
        let moments = memory.moments - second_moments_of_muon(&model, train);
        let parameters = model.step_cost().parameters;
        let moments = match train.shard {
            Shard::None => moments,
            Shard::Optimizer => moments.div_ceil(parallel.ranks as u64),
        };
        let mut memory = Self {
            weights: memory.weights,
            rounded: memory.rounded,
            gradients: memory.gradients,
            moments,
            activations: memory.activations,
            buckets: buckets(parameters, train, parallel),
            objective: footprint.bytes,
            program: PROGRAM,
            exclusive: memory.exclusive,
            checkpoint: moments,
        };
        memory.program += memory.total().saturating_sub(PROGRAM) / LOST;
        Ok(memory)
    }

    /// The kinds of a step with their names.
    pub fn parts(&self) -> [(&'static str, u64); 8] {
        [
            ("weights", self.weights),
            ("rounded copy", self.rounded),
            ("gradients", self.gradients),
            ("moments", self.moments),
            ("activations", self.activations),
            ("buckets", self.buckets),
            ("objective", self.objective),
            ("program and heap", self.program),
        ]
    }

    /// The peak of a step.
    pub fn step(&self) -> u64 {
        let sum = self.parts().into_iter().map(|(_, bytes)| bytes);
        let sum = sum.fold(0, u64::saturating_add);
        sum.saturating_sub(self.exclusive)
    }

    /// The peak while a checkpoint is written.
    pub fn saving(&self) -> u64 {
        let lasting = [self.weights, self.moments, self.objective, self.program];
        let parts = lasting.into_iter().chain([self.checkpoint]);
        parts.fold(0, u64::saturating_add)
    }

    /// The peak.
    pub fn total(&self) -> u64 {
        self.step().max(self.saving())
    }

    /// Rejects a run if the estimate for `devices` of the host exceeds its free memory. Each of several devices on a
    /// host has a copy of everything in the same memory.
    pub(crate) fn check_host(&self, devices: usize) -> Result<(), TrainError> {
        self.compare(devices as u64, available_memory())
    }

    fn compare(&self, devices: u64, available: u64) -> Result<(), TrainError> {
        let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
        let total = self.total().saturating_mul(devices);
        if total <= available {
            return Ok(());
        }
        let activations = self.activations.saturating_mul(devices).min(total);
        Err(TrainError::Memory {
            needed: gib(total),
            parameters: gib(total - activations),
            activations: gib(activations),
            available: gib(available),
        })
    }
}

/// The buckets under way at a time: as they are sent and as they arrive; and where whole sums are gathered, the same
/// for these.
fn buckets(parameters: u64, train: &TrainSection, parallel: Parallel) -> u64 {
    if parallel.ranks < 2 {
        return 0;
    }
    let copies = match train.shard {
        Shard::None => 4,
        Shard::Optimizer => 2,
    };
    let elements = parameters.min(UNDER_WAY * BUCKET / size_of::<f32>() as u64);
    elements * train.transfer.bytes() as u64 * copies
}

/// Bytes of the second moments that Muon does without: those of the blocks' matrices.
fn second_moments_of_muon<M: TrainedModel>(model: &M, train: &TrainSection) -> u64 {
    struct Matrices(u64);
    impl ParameterVisitor for Matrices {
        fn visit<const D: usize>(&mut self, name: &str, role: Role, parameter: &Param<Tensor<D>>) {
            if D == 2 && role.decays && name.contains(".layers.") {
                self.0 += parameter.lazy_shape().num_elements() as u64;
            }
        }
    }
    let mut matrices = Matrices(0);
    if train.optimizer == OptimizerKind::Muon {
        visit_parameters(model, &mut matrices);
    }
    matrices.0 * size_of::<f32>() as u64
}

/// Configures the C library's allocator to keep freed memory for the next step.
///
/// A training step frees its activations, and the next allocates the same sizes again. By default
/// glibc returns large buffers to the system, which clears them page by page when they are
/// allocated again. Call this at the start of `main`. It has no effect except on Linux with glibc.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (parameter, value) in [
        // No separate mappings for large allocations, which are always returned when freed.
        (libc::M_MMAP_MAX, 0),
        // Nothing is returned from the top of the heap.
        (libc::M_TRIM_THRESHOLD, -1),
        // The heap grows in steps of 64 MiB.
        (libc::M_TOP_PAD, 64 << 20),
        // One heap for all threads: a per-thread heap consists of pieces of 64 MiB, too small for a
        // model's larger tensors, and its freed memory cannot be reused by another thread.
        (libc::M_ARENA_MAX, 1),
    ] {
        // SAFETY: mallopt takes two integers and returns whether the first is a known option; it
        // locks the allocator during the change.
        unsafe { libc::mallopt(parameter, value) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_contains_the_numbers() {
        let gib = 1u64 << 30;
        let memory = RunMemory {
            weights: gib,
            rounded: 0,
            gradients: gib,
            moments: 2 * gib,
            activations: 5 * gib,
            buckets: 0,
            objective: 0,
            program: 0,
            exclusive: gib,
            checkpoint: gib,
        };
        assert_eq!((memory.step(), memory.saving()), (8 * gib, 4 * gib));
        assert!(memory.compare(1, 8 * gib).is_ok());
        let message = memory.compare(1, 7 * gib).unwrap_err().to_string();
        let expected = "needs about 8.0 GiB (3.0 GiB for weights, gradients and moments, 5.0 GiB";
        assert!(message.contains(expected), "{message}");
        assert!(message.contains("7.0 GiB are free"), "{message}");
        let message = memory.compare(2, 8 * gib).unwrap_err().to_string();
        assert!(message.contains("needs about 16.0 GiB"), "{message}");
    }
}
