//! A monitored process: exit status, time and memory.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Limits on computing and waiting for small inputs.
const LONGEST: Duration = Duration::from_secs(10);
/// Longer than the limit, because other load on the machine delays the process; computing time is
/// limited separately.
const PATIENCE: Duration = Duration::from_secs(60);
/// Memory that a process may take for any input.
const MEMORY: u64 = 300_000_000;

/// The end of a process.
#[derive(Debug)]
pub(super) struct Ended {
    status: ExitStatus,
    pub(super) errors: String,
    /// Processor time, user and system.
    computed: Duration,
    /// The maximum resident set size in bytes.
    peak: u64,
    /// Whether it was killed because its time was over.
    hung: bool,
}

impl Ended {
    /// Whether it ended with exit code 0.
    pub(super) fn success(&self) -> bool {
        self.status.success()
    }

    /// A description of unacceptable behaviour for an input of so many bytes, if any.
    pub(super) fn fault(&self, input: u64) -> Option<String> {
        match self.computed > LONGEST {
            true => Some(self.hangs()),
            false => self.fault_but_for_time(input),
        }
    }

    fn hangs(&self) -> String {
        let seconds = self.computed.as_secs_f64();
        format!("hangs: {seconds:.1} s of processor time")
    }

    /// The same as [`fault`](Self::fault), without limits on time: for small inputs that represent
    /// much work.
    pub(super) fn fault_but_for_time(&self, input: u64) -> Option<String> {
        let allowed = 4 * input + MEMORY;
        if self.hung {
            return Some(self.hangs());
        }
        if self.errors.contains("panicked at") || self.status.code() == Some(101) {
            return Some("panics".into());
        }
        match (self.status.code(), self.status.signal()) {
            (_, Some(signal)) => return Some(format!("ends by signal {signal}")),
            (Some(0..=2), _) => {}
            (code, _) => return Some(format!("ends with {code:?}; allowed: 0, 1, 2")),
        }
        if self.peak > allowed {
            let mb = |bytes: u64| bytes / 1_000_000;
            let (peak, allowed, input) = (mb(self.peak), mb(allowed), mb(input));
            return Some(format!(
                "takes {peak} MB for {input} MB; allowed: {allowed}"
            ));
        }
        if !self.success() && self.errors.trim().is_empty() {
            return Some("fails without a message".into());
        }
        None
    }

    /// The last line on standard error.
    pub(super) fn message(&self) -> &str {
        self.errors.lines().last().unwrap_or_default()
    }
}

/// Runs a command to its end, or kills it after a time limit.
///
/// Standard output is set by the caller; standard error goes to a file in `scratch`.
pub(super) fn watch(
    command: &mut Command,
    scratch: &Path,
    kill_after: Option<Duration>,
) -> anyhow::Result<Ended> {
    let log = scratch.join("stderr.log");
    command.stderr(File::create(&log).context("cannot write a log")?);
    let (status, computed, peak, hung) = watch_silently(command, kill_after)?;
    let errors = fs::read(&log).context("cannot read a log")?;
    Ok(Ended {
        status,
        errors: String::from_utf8_lossy(&errors).into_owned(),
        computed,
        peak,
        hung,
    })
}

/// The same as [`watch`], for a command whose standard error is redirected.
pub(super) fn watch_unheard(command: &mut Command) -> anyhow::Result<Ended> {
    let (status, computed, peak, hung) = watch_silently(command, None)?;
    Ok(Ended {
        status,
        errors: "standard error was redirected".into(),
        computed,
        peak,
        hung,
    })
}

fn watch_silently(
    command: &mut Command,
    kill_after: Option<Duration>,
) -> anyhow::Result<(ExitStatus, Duration, u64, bool)> {
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {command:?}"))?;
    let started = Instant::now();
    let id = libc::pid_t::try_from(child.id()).context("a process id")?;
    let (mut killed, mut hung) = (false, false);
    loop {
        let mut status = 0;
        // SAFETY: both addresses are valid for writing; zero is a valid rusage.
        let (found, usage) = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            let found = libc::wait4(id, &mut status, libc::WNOHANG, &mut usage);
            (found, usage)
        };
        if found == id {
            let computed = seconds(usage.ru_utime) + seconds(usage.ru_stime);
            let peak = u64::try_from(usage.ru_maxrss).unwrap_or(0) << 10;
            let status = ExitStatus::from_raw(status);
            return Ok((status, computed, peak, hung));
        }
        if found < 0 {
            bail!("cannot wait for {command:?}");
        }
        let elapsed = started.elapsed();
        hung |= elapsed > PATIENCE;
        if !killed && (hung || kill_after.is_some_and(|after| elapsed >= after)) {
            child.kill().context("cannot kill iiet")?;
            killed = true;
        }
        sleep(Duration::from_micros(500));
    }
}

fn seconds(time: libc::timeval) -> Duration {
    let whole = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(whole) + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}

/// The same command with a limit on its address space in bytes.
pub(super) fn with_address_space(command: &Command, bytes: u64) -> Command {
    let mut limited = Command::new("sh");
    let script = format!("ulimit -v {}; exec \"$0\" \"$@\"", bytes >> 10);
    limited
        .args(["-c", &script])
        .arg(command.get_program())
        .args(command.get_args())
        .stdout(Stdio::null())
        .stdin(Stdio::null());
    limited
}

/// A command as typed in a shell.
pub(super) fn as_typed(command: &Command) -> String {
    let quoted = |word: &std::ffi::OsStr| {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:".contains(c);
        match !word.is_empty() && word.chars().all(plain) {
            true => word.into_owned(),
            false => format!("'{}'", word.replace('\'', "'\\''")),
        }
    };
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(quoted).collect::<Vec<_>>().join(" ")
}
