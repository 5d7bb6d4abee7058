//! The machine of a report.

use serde::Serialize;
use sysinfo::{CpuRefreshKind, RefreshKind, System};

/// The machine on which speeds were measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The processor's name, if the system tells it.
    pub processor: Option<String>,
    /// Cores that the system offers to this process.
    pub cores: usize,
    /// Threads that compute on the CPU.
    pub threads: usize,
    /// The operating system, as Rust names it.
    pub system: &'static str,
    /// The processor's architecture, as Rust names it.
    pub architecture: &'static str,
}

impl Machine {
    /// The machine that this process runs on.
    pub fn this() -> Self {
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
