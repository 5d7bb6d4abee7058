//! Whether a run fits into memory, before any of it is taken; and keeping what was taken.

use iiet_model::{TrainingMemory, available_memory};

use crate::TrainError;

/// Refuses a run whose estimate exceeds the host's free memory.
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

/// Tells the C library's allocator to keep memory that is freed for the next step.
///
/// A training step frees its activations and asks for the same sizes again. glibc gives buffers
/// beyond some hundred KiB back to the system, which clears them page by page when they are asked
/// for again. Call it first thing in `main`. Elsewhere than on Linux with glibc it does nothing.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (parameter, value) in [
        // No mappings of their own, however large: they could only be unmapped.
        (libc::M_MMAP_MAX, 0),
        // Nothing back from the top of the heap.
        (libc::M_TRIM_THRESHOLD, -1),
        // The heap grows in steps of 64 MiB.
        (libc::M_TOP_PAD, 64 << 20),
        // One heap for all threads: a thread's own is made of pieces of 64 MiB, too small for a
        // model's larger tensors, and what one thread freed another could not have again.
        (libc::M_ARENA_MAX, 1),
    ] {
        // SAFETY: mallopt takes two numbers and says with its result whether it knew the first; it
        // locks the allocator while it changes it.
        unsafe { libc::mallopt(parameter, value) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_has_the_numbers() {
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
