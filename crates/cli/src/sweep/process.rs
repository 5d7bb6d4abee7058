//! Trials as child processes: `iiet train`, in a process group of their own.
//!
//! A signal of the terminal reaches this process alone, which passes it on once; a second one would end
//! a trial without its checkpoint.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::Context;
use iiet_sweep::{Ended, Job, Launcher, Process};

/// Characters of a reason that are kept.
const LONGEST_REASON: usize = 600;

/// Starts trials with this binary.
pub(super) struct TrainProcesses {
    binary: PathBuf,
    /// `--device`, as it was given.
    device: Vec<String>,
    /// Processes of a trial.
    ranks: usize,
}

impl TrainProcesses {
    pub(super) fn new(device: Vec<String>, ranks: usize) -> anyhow::Result<Self> {
        // On Linux this is the binary that runs, even if another was built in its place since. For mpirun it would be
        // mpirun's.
        let own = Path::new("/proc/self/exe");
        let binary = match own.exists() && ranks == 1 {
            true => own.to_owned(),
            false => std::env::current_exe().context("cannot find this binary to start trials")?,
        };
        Ok(Self {
            binary,
            device,
            ranks,
        })
    }

    /// What starts a trial: this binary, or what starts several of it. Within an allocation of Slurm's that is srun.
    fn command(&self) -> Command {
        let ranks = self.ranks.to_string();
        let mut command = match (self.ranks, std::env::var_os("SLURM_JOB_ID")) {
            (1, _) => return Command::new(&self.binary),
            (_, Some(_)) => {
                let mut command = Command::new("srun");
                command.args(["--exclusive", "--ntasks", &ranks]);
                command
            }
            (_, None) => {
                let mut command = Command::new("mpirun");
                // Trials at the same time would all be bound to the first cores.
                command.args(["--bind-to", "none", "-np", &ranks]);
                command
            }
        };
        command.arg(&self.binary);
        command
    }
}

impl Launcher for TrainProcesses {
    type Process = TrainProcess;

    fn launch(&mut self, job: &Job<'_>) -> io::Result<TrainProcess> {
        let log = OpenOptions::new().create(true).append(true).open(job.log)?;
        let logged = log.metadata()?.len();
        let threads = (job.threads / self.ranks).max(1);
        let mut command = self.command();
        command
            .arg("train")
            .arg("--config")
            .arg(job.config)
            .arg("--run")
            .arg(job.run)
            .args(["--until", &job.until.to_string()])
            .args(&self.device)
            .env("RAYON_NUM_THREADS", threads.to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        for set in job.trial.sets() {
            command.args(["--set", &set]);
        }
        if job.resume {
            command.arg("--resume");
        }
        // mpirun ends its processes without delay on SIGTERM, and passes SIGUSR1 on.
        let stop = match self.ranks {
            1 => STOP,
            _ => STOP_ALL,
        };
        in_own_group(&mut command, stop);
        Ok(TrainProcess {
            child: command.spawn()?,
            stop,
            log: job.log.to_owned(),
            logged,
        })
    }
}

#[cfg(unix)]
const STOP: i32 = libc::SIGTERM;
#[cfg(unix)]
const STOP_ALL: i32 = libc::SIGUSR1;
#[cfg(not(unix))]
const STOP: i32 = 0;
#[cfg(not(unix))]
const STOP_ALL: i32 = 0;

/// Detaches a process from the terminal's signals, and on Linux asks the system to send it `stop` when
/// this process is gone.
#[cfg(unix)]
fn in_own_group(command: &mut Command, stop: i32) {
    use std::os::unix::process::CommandExt;

    if command.get_program() == "/proc/self/exe" {
        command.arg0("iiet");
    }
    command.process_group(0);
    #[cfg(target_os = "linux")]
    // SAFETY: prctl may be called between fork and exec; it takes no memory and no locks.
    unsafe {
        command.pre_exec(move || match libc::prctl(libc::PR_SET_PDEATHSIG, stop) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}

#[cfg(not(unix))]
fn in_own_group(_: &mut Command, _: i32) {}

/// A trial that is running.
pub(super) struct TrainProcess {
    child: Child,
    /// The signal that asks it for a checkpoint and its end.
    #[cfg_attr(not(unix), allow(dead_code, reason = "there is no signal to ask with"))]
    stop: i32,
    log: PathBuf,
    /// Bytes of the log that are of earlier processes.
    logged: u64,
}

impl Process for TrainProcess {
    fn poll(&mut self) -> io::Result<Option<Ended>> {
        let status = self.child.try_wait()?;
        Ok(status.map(|status| match status.code() {
            Some(0) => Ended::Done,
            _ if was_asked_to_stop(status) => Ended::Stopped,
            _ => Ended::Failed(self.reason(status)),
        }))
    }

    #[cfg(unix)]
    fn stop(&mut self) {
        if let Ok(process) = libc::pid_t::try_from(self.child.id()) {
            // SAFETY: the child was not waited for, so the number is its own. It may have ended already.
            unsafe { libc::kill(process, self.stop) };
        }
    }

    #[cfg(not(unix))]
    fn stop(&mut self) {
        // There is no signal to ask with. It goes on from its last checkpoint.
        let _ = self.child.kill();
    }
}

impl TrainProcess {
    /// What it said last, or how it ended.
    fn reason(&self, status: ExitStatus) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let start = usize::try_from(self.logged).unwrap_or(0).min(log.len());
        let log = String::from_utf8_lossy(&log[start..]);
        match last_error(&log) {
            Some(error) => error,
            None => format!(
                "{status}{}",
                match memory_ran_out(status) {
                    true => ", as the system does when memory is used up",
                    false => "",
                }
            ),
        }
    }
}

/// The last error that a log ends with.
fn last_error(log: &str) -> Option<String> {
    let at = match log.rfind("\nerror: ") {
        Some(at) => at + 1,
        None if log.starts_with("error: ") => 0,
        None => return None,
    };
    let text = log[at..].trim_start_matches("error: ").trim();
    Some(text.chars().take(LONGEST_REASON).collect())
}

/// Whether a process was ended by one of the signals that leave a checkpoint, or by it exited with
/// 128 + that signal.
#[cfg(unix)]
fn was_asked_to_stop(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;

    let signals = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1];
    let code = status.code().map(|code| code - 128);
    code.or(status.signal())
        .is_some_and(|signal| signals.contains(&signal))
}

#[cfg(unix)]
fn memory_ran_out(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;

    status.signal() == Some(libc::SIGKILL)
}

/// Only this process ends one, see `stop`.
#[cfg(not(unix))]
fn was_asked_to_stop(status: ExitStatus) -> bool {
    status.code() == Some(1) && crate::signals::exit_code().is_some()
}

#[cfg(not(unix))]
fn memory_ran_out(_: ExitStatus) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_failure_is_the_last_error() {
        assert_eq!(last_error("step 1\nno luck\n"), None);
        assert_eq!(last_error("error: a\n").as_deref(), Some("a"));
        let log = "error: old\nstep 2\nerror: step 3: the loss is NaN\n  more\n";
        assert_eq!(
            last_error(log).as_deref(),
            Some("step 3: the loss is NaN\n  more")
        );
    }

    #[cfg(unix)]
    #[test]
    fn signals_that_leave_a_checkpoint_are_no_failures() {
        let end = |script: &str| {
            let status = Command::new("sh").args(["-c", script]).status().unwrap();
            was_asked_to_stop(status)
        };
        assert!(end("exit 143") && end("exit 130") && end("kill -TERM $$"));
        assert!(!end("exit 1") && !end("exit 137") && !end("kill -KILL $$"));
    }
}
