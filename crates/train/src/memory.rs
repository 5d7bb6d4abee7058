//! Whether a run fits into memory, before any of it is taken.

use iiet_model::TrainingMemory;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::TrainError;

/// Bytes that this machine has to give, within the limits of a container.
fn available() -> u64 {
    let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::everything());
    let system = System::new_with_specifics(memory);
    let free = system.available_memory();
    system
        .cgroup_limits()
        .map_or(free, |limits| free.min(limits.free_memory))
}

/// Refuses a run whose estimate exceeds the host's free memory.
pub(crate) fn check_host(memory: &TrainingMemory) -> Result<(), TrainError> {
    compare(memory, available())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_some_memory() {
        assert!(available() > 1 << 20);
    }

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
