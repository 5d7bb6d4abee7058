//! The memory of a run by kind, its check before a run starts, and an allocator setting.

use burn::module::Param;
use burn::tensor::{Device, Tensor};
use iiet_model::{ParameterVisitor, Role, available_memory, visit_parameters};
use serde::Serialize;

use crate::lengths::lengths;
use crate::optimizer::matrix_of_block;
use crate::parallel::BUCKET;
use crate::{
    Footprint, OptimizerKind, Parallel, Recompute, RunConfig, Shard, TrainError, TrainSection,
    TrainedModel, Vocabulary,
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
    /// Buffers of the exchange between ranks, once the backward pass has ended; in host memory.
    pub buckets: u64,
    /// Those that are there beside the activations, if the exchange overlaps the backward pass.
    pub overlapped: u64,
    /// The updated weights of a sharded optimiser: this rank's part, and all parts as they arrive; in host memory.
    pub gathered: u64,
    /// What the objective needs, such as a teacher.
    pub objective: u64,
    /// The program itself, and what the heap loses; in host memory.
    pub program: u64,
    /// The part of gradients and activations that is never there at once.
    pub exclusive: u64,
}

/// What is in memory in a part of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// Its name.
    pub name: &'static str,
    /// The bytes of each kind.
    pub kinds: Vec<(&'static str, u64)>,
    /// Bytes of them that are never there at once.
    pub exclusive: u64,
}

impl Phase {
    /// The sum.
    pub fn bytes(&self) -> u64 {
        let kinds = self.kinds.iter().map(|(_, bytes)| *bytes);
        let sum = kinds.fold(0u64, u64::saturating_add);
        sum.saturating_sub(self.exclusive)
    }
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
            buckets: 0,
            overlapped: 0,
            gathered: 0,
            objective: footprint.bytes,
            program: PROGRAM,
            exclusive: memory.exclusive,
        };
        if parallel.ranks > 1 {
            memory.of_exchange(&model, train, parallel.ranks as u64);
        }
        memory.program += memory.total().saturating_sub(PROGRAM) / LOST;
        Ok(memory)
    }

    /// Adds what several ranks exchange.
    ///
    /// A gradient is in its tensor, in a bucket or in a sum, so the buffers beside `gradients` are a bucket that is
    /// put together, and one on its way, as it is sent and as it arrives. A parameter of several buckets is kept until the
    /// last of them has been sent, while its sum grows.
    fn of_exchange<M: TrainedModel>(&mut self, model: &M, train: &TrainSection, ranks: u64) {
        let lengths = lengths(model).into_iter().map(|(_, length)| length as u64);
        let largest = lengths.max().unwrap_or(0);
        let f32 = size_of::<f32>() as u64;
        let bucket = self.weights.min(BUCKET);
        let way = 2 * bucket / f32 * train.transfer.bytes() as u64;
        self.buckets = bucket + way + largest * f32;
        if train.recompute == Recompute::Layer {
            // The first is full before others are on their way.
            self.overlapped = bucket.min(self.weights - bucket);
        }
        if train.shard == Shard::Optimizer {
            self.gathered = self.weights + self.weights / ranks;
        }
    }

    /// The kinds with their names.
    pub fn kinds(&self) -> [(&'static str, u64); 10] {
        [
            ("weights", self.weights),
            ("rounded copy", self.rounded),
            ("gradients", self.gradients),
            ("moments", self.moments),
            ("activations", self.activations),
            ("early buckets", self.overlapped),
            ("buckets", self.buckets),
            ("updated weights", self.gathered),
            ("objective", self.objective),
            ("program and heap", self.program),
        ]
    }

    /// The parts of a step. A checkpoint is written after the step, tensor by tensor.
    pub fn phases(&self) -> [Phase; 3] {
        let lasting = [
            ("weights", self.weights),
            ("moments", self.moments),
            ("objective", self.objective),
            ("program and heap", self.program),
        ];
        let phase = |name, kinds: &[(&'static str, u64)], exclusive| Phase {
            name,
            kinds: lasting.iter().chain(kinds).copied().collect(),
            exclusive,
        };
        let (rounded, buckets) = (("rounded copy", self.rounded), ("buckets", self.buckets));
        let backward = [
            rounded,
            ("gradients", self.gradients),
            ("activations", self.activations),
            ("early buckets", self.overlapped),
        ];
        // The sum over the micro-batches alone is left, as large as the weights.
        let exchange = [rounded, ("gradients", self.weights), buckets];
        let update = [("updated weights", self.gathered), buckets];
        [
            phase("backward pass", &backward, self.exclusive),
            phase("exchange", &exchange, 0),
            phase("update", &update, 0),
        ]
    }

    /// The phase with the peak.
    pub fn peak(&self) -> Phase {
        let phases = self.phases().into_iter();
        phases
            .max_by_key(Phase::bytes)
            .expect("invariant: three phases")
    }

    /// The peak, in bytes.
    pub fn total(&self) -> u64 {
        self.peak().bytes()
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

/// Bytes of the second moments that Muon does without: those of the blocks' matrices.
fn second_moments_of_muon<M: TrainedModel>(model: &M, train: &TrainSection) -> u64 {
    struct Matrices(u64);
    impl ParameterVisitor for Matrices {
        fn visit<const D: usize>(&mut self, name: &str, role: Role, parameter: &Param<Tensor<D>>) {
            let matrix = matrix_of_block(name, role, &parameter.lazy_shape());
            self.0 += matrix.map_or(0, |[rows, columns]| (rows * columns) as u64);
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
            overlapped: 0,
            gathered: 0,
            objective: 0,
            program: 0,
            exclusive: gib,
        };
        assert_eq!(memory.total(), 8 * gib);
        assert!(memory.compare(1, 8 * gib).is_ok());
        let message = memory.compare(1, 7 * gib).unwrap_err().to_string();
        let expected = "needs about 8.0 GiB (3.0 GiB for weights, gradients and moments, 5.0 GiB";
        assert!(message.contains(expected), "{message}");
        assert!(message.contains("7.0 GiB are free"), "{message}");
        let message = memory.compare(2, 8 * gib).unwrap_err().to_string();
        assert!(message.contains("needs about 16.0 GiB"), "{message}");
    }
    #[test]
    fn the_peak_is_that_of_the_largest_phase() {
        let memory = RunMemory {
            weights: 100,
            rounded: 50,
            gradients: 200,
            moments: 30,
            activations: 40,
            buckets: 7,
            overlapped: 3,
            gathered: 110,
            objective: 1,
            program: 2,
            exclusive: 40,
        };
        // Weights, moments, objective and program last.
        let peaks = memory.phases().map(|phase| phase.bytes() - 133);
        assert_eq!(peaks, [50 + 200 + 3, 50 + 100 + 7, 110 + 7]);
        assert_eq!(
            (memory.peak().name, memory.total()),
            ("backward pass", 133 + 253)
        );
        let gathered = RunMemory {
            gathered: 300,
            ..memory
        };
        assert_eq!(
            (gathered.peak().name, gathered.total()),
            ("update", 133 + 307)
        );
    }
}
