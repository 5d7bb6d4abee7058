//! A memory check before a run starts, and an allocator setting.

use iiet_model::{TrainingMemory, available_memory};

use crate::TrainError;

/// Rejects a run whose estimate exceeds the host's free memory.
pub(crate) fn check_host(memory: &TrainingMemory) -> Result<(), TrainError> {
    compare(memory, available_memory())
}

fn compare(memory: &TrainingMemory, available: u64) -> Result<(), TrainError> {
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    if memory.total() <= available {
        return Ok(());
    }
    Err(TrainError::Memory {
        needed: gib(memory.total()),
        parameters: gib(memory.parameters),
        activations: gib(memory.activations),
        available: gib(available),
    })
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
        let memory = TrainingMemory {
            parameters: 3 * gib,
            activations: 5 * gib,
        };
        assert!(compare(&memory, 8 * gib).is_ok());
        let message = compare(&memory, 7 * gib).unwrap_err().to_string();
        let expected = "needs about 8.0 GiB (3.0 GiB for weights, gradients and moments, 5.0 GiB";
        assert!(message.contains(expected), "{message}");
        assert!(message.contains("7.0 GiB are free"), "{message}");
    }
}
