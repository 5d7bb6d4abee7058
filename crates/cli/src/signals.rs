//! Signals that end training with a checkpoint: Ctrl-C, and those sent by Slurm, Kubernetes and a closed
//! terminal.
//!
//! The first signal requests a checkpoint after the current step, the second ends the process at once. Before
//! the first step and after the last, when there is nothing to save, the first one ends the process. An
//! interrupted run exits with 128 + signal, like a process that is ended by the signal.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use anyhow::Context;
use signal_hook::low_level;

/// Whether training is to end after the current step.
static STOP: AtomicBool = AtomicBool::new(false);
/// Whether there is training state that can be saved.
static TRAINING: AtomicBool = AtomicBool::new(false);
/// The signal that set [`STOP`].
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// Handles the signals from now on; the first signal sets the result.
pub(crate) fn catch() -> anyhow::Result<&'static AtomicBool> {
    register().context("cannot catch signals")?;
    Ok(&STOP)
}

/// Sets whether a checkpoint can be written.
pub(crate) fn training(on: bool) {
    TRAINING.store(on, Ordering::SeqCst);
}

/// The exit code of a run that a signal interrupted.
pub(crate) fn exit_code() -> Option<u8> {
    let signal = SIGNAL.load(Ordering::SeqCst);
    (signal != 0).then(|| 128 + u8::try_from(signal).unwrap_or(0))
}

/// The run completed anyway: the signal came during the last step.
pub(crate) fn forget() {
    SIGNAL.store(0, Ordering::SeqCst);
}

/// Handles a signal; true if it was the first and a checkpoint follows.
fn receive(signal: i32) -> bool {
    if !TRAINING.load(Ordering::SeqCst) || STOP.swap(true, Ordering::SeqCst) {
        low_level::exit(128 + signal);
    }
    SIGNAL.store(signal, Ordering::SeqCst);
    true
}

#[cfg(unix)]
fn register() -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
    use signal_hook::iterator::Signals;
    let signals = [SIGINT, SIGTERM, SIGHUP, SIGUSR1];
    // nohup makes the process ignore SIGHUP, so it must continue.
    let mut signals = Signals::new(signals.iter().filter(|signal| !is_ignored(**signal)))?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if receive(signal) {
                crate::print::errln!(
                    "{}: a checkpoint follows this step; a second signal ends at once",
                    low_level::signal_name(signal).unwrap_or("interrupted")
                );
            }
        }
    });
    Ok(())
}

/// Whether the parent process set a signal to be ignored. Only for SIGHUP: shells also ignore SIGINT for
/// background processes, where it is still a way to request a checkpoint.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    if signal != signal_hook::consts::SIGHUP {
        return false;
    }
    // SAFETY: sigaction without a new action only writes the present one to `present`, and zeros are a valid
    // value of that plain struct.
    unsafe {
        let mut present: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut present) == 0
            && present.sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(not(unix))]
fn register() -> std::io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    for signal in [SIGINT, SIGTERM] {
        // SAFETY: the action only accesses atomics and may end the process, which is allowed in a signal
        // handler.
        unsafe {
            low_level::register(signal, move || {
                receive(signal);
            })
        }?;
    }
    Ok(())
}
