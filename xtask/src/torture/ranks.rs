//! Runs over several processes: one of them is killed at any moment, is stopped, reads another text, or has no room to
//! write. Every process must end within a bounded time with a message that names the rank, the last checkpoint must be
//! whole, and the resumed run must equal the clean one.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail, ensure};

use super::Extent;
use super::kills::saving;
use super::random::Random;
use super::workload::Workload;

/// The time in which all processes end after a fault: a margin over [`TIMEOUT`].
const BOUND: Duration = Duration::from_secs(60);
/// The time limit of an undisturbed process.
const PATIENCE: Duration = Duration::from_secs(300);
/// `--rank-timeout` in seconds.
const TIMEOUT: u64 = 10;
/// In microseconds: longer than a save of the model.
const LONGEST_SAVE: u64 = 20_000;

/// Kills and stops, with what became of them.
#[derive(Default)]
struct Faults {
    kills: u64,
    during_a_save: u64,
    stops: u64,
    runs: u64,
    slowest_end: Duration,
}

pub(super) fn run(
    workspace: &Path,
    iiet: &Path,
    place: &Path,
    (ranks, extent): (u64, &Extent),
    random: &mut Random,
) -> anyhow::Result<()> {
    ensure!((2..=8).contains(&ranks), "--ranks {ranks}; allowed: 2 to 8");
    let launcher = launcher(ranks);
    let keys = format!("shard = \"optimizer\"\nrecompute = \"layer\"\naccumulation = {ranks}");
    let workload = Workload::texts(workspace, (iiet, &launcher), place, extent.steps, &keys)?;
    println!(
        "clean run         {} steps in {:.1} s: {ranks} ranks, two sources, two stages, sharded moments, {:.1} epochs of the smaller source",
        extent.steps, workload.clean_seconds, workload.epochs,
    );
    let kills = extent.kills.min(60);
    let stops = kills.div_ceil(10);
    let faults = disturb(&workload, kills, stops, random)?;
    println!(
        "faults            {} processes killed, {} of them during a save, and {} stopped; all others ended within {:.1} s with its number; {} runs ended like the clean one",
        faults.kills,
        faults.during_a_save,
        faults.stops,
        faults.slowest_end.as_secs_f64(),
        faults.runs
    );
    println!("{}", other_text(&workload, ranks)?);
    println!("{}", no_room(&workload, ranks)?);
    Ok(())
}

/// `mpirun` with its options.
fn launcher(ranks: u64) -> Vec<String> {
    let mut words = vec!["mpirun".to_owned()];
    // SAFETY: geteuid takes nothing and always succeeds.
    if unsafe { libc::geteuid() } == 0 {
        words.push("--allow-run-as-root".into());
    }
    let rest = ["--oversubscribe", "--bind-to", "none", "-np"];
    words.extend(rest.map(str::to_owned));
    words.push(ranks.to_string());
    words
}

enum Fault {
    Kill,
    Stop,
}

/// Runs that are disturbed until they are complete, as long as there are faults left.
fn disturb(
    workload: &Workload,
    kills: u64,
    stops: u64,
    random: &mut Random,
) -> anyhow::Result<Faults> {
    let mut done = Faults::default();
    while done.kills < kills || done.stops < stops {
        let run = workload.folder(&format!("disturbed-{}", done.runs));
        loop {
            let fault = match (done.kills < kills, done.stops < stops) {
                (false, false) => None,
                (_, true) if random.below(10) == 0 || done.kills >= kills => Some(Fault::Stop),
                _ => Some(Fault::Kill),
            };
            if once(workload, &run, fault, random, &mut done)? {
                break;
            }
        }
        workload.compare(&run, &format!("run {} after faults", done.runs))?;
        fs::remove_dir_all(&run)?;
        done.runs += 1;
    }
    Ok(done)
}

/// Starts or resumes a run; true if it completed.
fn once(
    workload: &Workload,
    run: &Path,
    fault: Option<Fault>,
    random: &mut Random,
    done: &mut Faults,
) -> anyhow::Result<bool> {
    let mut command = match run.join("config.toml").exists() {
        true => workload.resume(run),
        false => workload.start(run),
    };
    command.args(["--rank-timeout", &TIMEOUT.to_string()]);
    let log = run.with_extension("log");
    let born = SystemTime::now();
    let mut child = command
        .stdout(Stdio::null())
        .stderr(File::create(&log).context("cannot write a log")?)
        .spawn()
        .context("cannot start mpirun")?;
    // Half of the faults are during a save.
    let after = match random.below(2) {
        0 => Some(Duration::from_millis(random.below(2500))),
        _ => None,
    };
    let then = Duration::from_micros(random.below(LONGEST_SAVE));
    let started = Instant::now();
    let (mut saved_since, mut disturbed) = (None::<Instant>, None);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        saved_since = saved_since.or_else(|| saving(run, born).then(Instant::now));
        let due = match after {
            Some(after) => started.elapsed() >= after,
            None => saved_since.is_some_and(|since| since.elapsed() >= then),
        };
        if let (None, true, Some(fault)) = (&disturbed, due, &fault) {
            let of_ranks = children(child.id());
            if let Some((rank, process)) = chosen(&of_ranks, random) {
                let signal = match fault {
                    Fault::Kill => libc::SIGKILL,
                    Fault::Stop => libc::SIGSTOP,
                };
                let during_a_save = saving(run, born);
                // SAFETY: sends a signal to a process that mpirun has not waited for, or to none.
                unsafe { libc::kill(process, signal) };
                disturbed = Some((rank, Instant::now(), during_a_save));
            }
        }
        let late = match &disturbed {
            Some((_, since, _)) => since.elapsed() > BOUND,
            None => started.elapsed() > PATIENCE,
        };
        if late {
            let _ = child.kill();
            let errors = fs::read_to_string(&log).unwrap_or_default();
            let what = match (&disturbed, &fault) {
                (None, _) => "no fault",
                (_, Some(Fault::Stop)) => "a stop",
                _ => "a kill",
            };
            bail!("after {what} the processes do not end:\n{errors}");
        }
        sleep(Duration::from_micros(200));
    };
    let errors = fs::read_to_string(&log).unwrap_or_default();
    ensure!(!errors.contains("panicked"), "a panic:\n{errors}");
    if status.success() {
        return Ok(true);
    }
    let (rank, since, during_a_save) =
        disturbed.with_context(|| format!("{status} without a fault:\n{errors}"))?;
    done.slowest_end = done.slowest_end.max(since.elapsed());
    let named = format!("rank {rank}");
    // A rank that is stopped before it is connected cannot be named.
    let unconnected = format!("the ranks are not connected after {TIMEOUT} s");
    match fault {
        Some(Fault::Stop) => {
            let expected = format!("no answer from {named} for {TIMEOUT} s");
            ensure!(
                errors.contains(&expected) || errors.contains(&unconnected),
                "no `{expected}` in:\n{errors}"
            );
            done.stops += 1;
        }
        _ if !errors.contains(&named) => bail!("no {named} in:\n{errors}"),
        _ => {
            done.kills += 1;
            done.during_a_save += u64::from(during_a_save);
        }
    }
    Ok(false)
}

/// The processes that mpirun has started, in the order of their ranks.
fn children(of: u32) -> Vec<libc::pid_t> {
    let path = format!("/proc/{of}/task/{of}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    let numbers = text.split_whitespace();
    numbers.filter_map(|number| number.parse().ok()).collect()
}

/// A rank that is up, and its process.
fn chosen(processes: &[libc::pid_t], random: &mut Random) -> Option<(u64, libc::pid_t)> {
    let process = *processes.get(random.below(processes.len().max(1) as u64) as usize)?;
    let environment = fs::read(format!("/proc/{process}/environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    let rank = variables.find_map(|variable| variable.strip_prefix(b"OMPI_COMM_WORLD_RANK="))?;
    let rank = std::str::from_utf8(rank).ok()?.parse().ok()?;
    Some((rank, process))
}

/// A command whose last rank runs something else than the others.
fn with_other_last(workload: &Workload, run: &Path, ranks: u64, last: &[&str]) -> Command {
    let train = workload.start(run);
    let mut words = train.get_args().map(ToOwned::to_owned);
    let mut command = Command::new(train.get_program());
    // Up to the number of processes, which is replaced.
    for word in words.by_ref() {
        if word == ranks.to_string().as_str() {
            break;
        }
        command.arg(word);
    }
    let train: Vec<_> = words.collect();
    command.arg((ranks - 1).to_string()).args(&train);
    command.args([":", "-np", "1"]).args(last);
    command.args(&train);
    command
}

fn ended(mut command: Command) -> anyhow::Result<(ExitStatus, String, Duration)> {
    let started = Instant::now();
    let output = command.output().context("cannot start mpirun")?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!errors.contains("panicked"), "a panic:\n{errors}");
    Ok((output.status, errors, started.elapsed()))
}

/// One rank has another configuration.
fn other_text(workload: &Workload, ranks: u64) -> anyhow::Result<String> {
    let run = workload.folder("other-text");
    let mut command = with_other_last(workload, &run, ranks, &[]);
    command.args(["--set", "data.vocab_size=900"]);
    let (status, errors, time) = ended(command)?;
    ensure!(!status.success() && time < BOUND, "{status}:\n{errors}");
    let expected = format!("rank {} differs from rank 0:", ranks - 1);
    ensure!(errors.contains(&expected), "no `{expected}` in:\n{errors}");
    ensure!(
        errors.contains("data.vocab_size is 1024 on rank 0 and 900"),
        "{errors}"
    );
    ensure!(!run.join("config.toml").exists(), "a run was begun");
    Ok("other text        refused by all ranks with the difference, nothing written".into())
}

/// One rank cannot write more than a few bytes to a file.
fn no_room(workload: &Workload, ranks: u64) -> anyhow::Result<String> {
    let run = workload.folder("no-room");
    let limited = ["sh", "-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\""];
    let (status, errors, time) = ended(with_other_last(workload, &run, ranks, &limited))?;
    ensure!(!status.success() && time < BOUND, "{status}:\n{errors}");
    let expected = format!("rank {}: ", ranks - 1);
    ensure!(
        errors.contains(&expected) && errors.contains("optimizer-"),
        "no `{expected}` with the file in:\n{errors}"
    );
    let checkpoints = fs::read_dir(run.join("checkpoints")).context("checkpoints")?;
    ensure!(checkpoints.count() == 0, "an incomplete checkpoint is left");
    let (status, errors, _) = ended(workload.resume(&run))?;
    ensure!(status.success(), "{status}:\n{errors}");
    workload.compare(&run, "the run after a full disk")?;
    Ok("no room           on one rank: all end with its number and file, nothing incomplete is left, the resumed run ends like the clean one".into())
}
