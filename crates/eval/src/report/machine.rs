//! Where a report was made, and whether its models fit there.

use serde::Serialize;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// The machine that figures of speed are of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The processor's name, if the system tells it.
    pub processor: Option<String>,
    /// Cores that the system offers to this process.
    pub cores: usize,
    /// Threads that compute on the CPU.
    pub threads: usize,
    pub system: &'static str,
    pub architecture: &'static str,
}

impl Machine {
    pub(super) fn this() -> Self {
        let processors = RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing());
        let system = System::new_with_specifics(processors);
        let name = system.cpus().first().map(|cpu| cpu.brand().trim());
        Self {
            processor: name.filter(|name| !name.is_empty()).map(str::to_owned),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            threads: rayon::current_num_threads(),
            system: std::env::consts::OS,
            architecture: std::env::consts::ARCH,
        }
    }
}

/// Bytes of memory that this machine has to give, within the limits of a container.
pub(super) fn available_memory() -> u64 {
    let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::everything());
    let system = System::new_with_specifics(memory);
    let free = system.available_memory();
    let limits = system.cgroup_limits();
    limits.map_or(free, |limits| free.min(limits.free_memory))
}
