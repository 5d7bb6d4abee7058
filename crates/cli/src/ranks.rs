//! The processes that `mpirun` or `srun` has started together.

use std::env;

use iiet_data::Progress;
use iiet_train::{Event, Observer, Ranks};

use crate::progress::DataProgress;
use crate::signals;

/// How long another process may not answer.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RanksArgument {
    /// End all processes of the run if one of them has not answered for this time, in seconds: it is stopped, or cut
    /// off. One that computes for long does answer.
    #[cfg(feature = "mpi")]
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    rank_timeout: u64,
}

impl RanksArgument {
    /// Does the same work in every process. If it fails in one, all end, with that one's error.
    #[cfg(feature = "mpi")]
    pub(crate) fn together(
        &self,
        work: impl FnOnce(&Ranks) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        use std::time::Duration;

        use iiet_train::Mpi;

        if launched().is_none() {
            return work(&Ranks::default());
        }
        let mpi = Mpi::start(Duration::from_secs(self.rank_timeout))?;
        let abort = mpi.abort();
        let ranks = Ranks::new(mpi);
        let (rank, size) = (ranks.rank(), ranks.size());
        anyhow::ensure!(
            size > 1 || launched().is_none_or(|count| count < 2),
            "{} processes were started together, and MPI connects this one to none of the others: they were started for \
             another MPI library than iiet was built with; with Slurm try srun --mpi=pmix, or SLURM_MPI_TYPE=pmix",
            launched().unwrap_or(0)
        );
        let Err(error) = work(&ranks) else {
            return Ok(());
        };
        if size == 1 {
            return Err(error);
        }
        if rank > 0 {
            // An error of all is the first process's to tell; it ends the others before they get here.
            std::thread::sleep(Duration::from_secs(1));
        }
        crate::print::errln!("error: rank {rank}: {}", crate::message(&error));
        abort.with(1)
    }

    /// Does the work, in the only process.
    ///
    /// # Errors
    ///
    /// A sentence with the remedy if there are several, which would all do the same.
    #[cfg(not(feature = "mpi"))]
    pub(crate) fn together(
        &self,
        work: impl FnOnce(&Ranks) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        match launched() {
            Some(count) if count > 1 => anyhow::bail!(
                "{count} processes were started together, and this iiet was built without MPI, so each would do all of \
                 the work; build it with --features mpi, or start one process"
            ),
            _ => work(&Ranks::default()),
        }
    }
}

/// The number of processes that were started together; none if this one was started alone.
fn launched() -> Option<usize> {
    // Open MPI's mpirun; MPICH's and Intel's, and Slurm's srun with PMI-1 or -2; srun with PMIx, or with nothing that
    // connects its tasks, which is noticed later.
    let number = |name: &str| env::var(name).ok()?.parse::<usize>().ok();
    let of_mpi = number("OMPI_COMM_WORLD_SIZE").or_else(|| number("PMI_SIZE"));
    of_mpi.or_else(|| {
        let tasks = number("SLURM_STEP_NUM_TASKS")?;
        (tasks > 1 || env::var_os("PMIX_RANK").is_some()).then_some(tasks)
    })
}

/// The number of this process among those of its node, from 0.
pub(crate) fn local_rank() -> usize {
    let names = [
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "MPI_LOCALRANKID",
        "SLURM_LOCALID",
    ];
    let found = names
        .iter()
        .find_map(|name| env::var(name).ok()?.parse().ok());
    found.filter(|_| launched().is_some()).unwrap_or(0)
}

/// The progress of preparing data, which the first process shows.
pub(crate) fn data_progress(ranks: &Ranks) -> Box<dyn Progress> {
    match ranks.is_first() {
        true => Box::new(DataProgress::default()),
        false => Box::new(()),
    }
}

/// Shows nothing of a run, which the first process shows.
pub(crate) struct Quiet;

impl Observer for Quiet {
    fn on(&mut self, event: &Event<'_>) {
        if let Event::Started(_) = event {
            signals::training(true);
        }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        signals::training(false);
    }
}
