//! SIGKILL at any moment, half of the time while a checkpoint is being written.

use std::fmt;
use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};

use super::random::Random;
use super::workload::Workload;

pub(super) struct Kills {
    kills: u64,
    during_a_save: u64,
    runs: u64,
    steps_compared: u64,
    seconds: f64,
}

impl fmt::Display for Kills {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "kills             {} with SIGKILL, {} of them during a save; {} runs ended like the clean run, {} steps bitwise identical, with weights and moments; {:.0} s",
            self.kills, self.during_a_save, self.runs, self.steps_compared, self.seconds
        )
    }
}

/// The time limit of a process.
const PATIENCE: Duration = Duration::from_secs(120);

/// In microseconds. Most saves of the model take less, so that kills occur in all parts of a save.
const LONGEST_SAVE: u64 = 8_000;

/// Complete runs, killed repeatedly, until the number of kills is reached.
pub(super) fn run(workload: &Workload, kills: u64, random: &mut Random) -> anyhow::Result<Kills> {
    let started = Instant::now();
    let mut done = Kills {
        kills: 0,
        during_a_save: 0,
        runs: 0,
        steps_compared: 0,
        seconds: 0.0,
    };
    while done.kills < kills || 2 * done.during_a_save < kills {
        let run = workload.folder(&format!("killed-{}", done.runs));
        let enough = |done: &Kills| done.kills >= kills && 2 * done.during_a_save >= kills;
        loop {
            let kill = (!enough(&done)).then(|| match 2 * done.during_a_save <= done.kills {
                true => Moment::Save {
                    // The first save of a process, or a later one.
                    saves: random.below(3),
                    then: Duration::from_micros(random.below(LONGEST_SAVE)),
                },
                false => Moment::After(Duration::from_millis(random.below(900))),
            });
            match once(workload, &run, kill)? {
                End::Complete => break,
                End::Killed { during_a_save } => {
                    done.kills += 1;
                    done.during_a_save += u64::from(during_a_save);
                }
            }
        }
        workload.compare(&run, &format!("run {} after kills", done.runs))?;
        fs::remove_dir_all(&run)?;
        done.runs += 1;
        done.steps_compared += workload.steps;
    }
    done.seconds = started.elapsed().as_secs_f64();
    Ok(done)
}

/// The moment of a kill.
enum Moment {
    /// Time after the start.
    After(Duration),
    /// Time after the start of a save, following a number of earlier saves.
    Save { saves: u64, then: Duration },
}

enum End {
    Complete,
    Killed { during_a_save: bool },
}

/// Starts or resumes the run, and kills it at the given moment.
fn once(workload: &Workload, run: &Path, kill: Option<Moment>) -> anyhow::Result<End> {
    let mut command = match run.join("config.toml").exists() {
        true => workload.resume(run),
        false => workload.start(run),
    };
    let log = run.with_extension("log");
    let errors = File::create(&log).context("cannot write a log")?;
    let born = SystemTime::now();
    let mut child = command
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .context("cannot start iiet")?;
    let started = Instant::now();
    let (mut saves_seen, mut was_saving) = (0, false);
    let mut began = None;
    let ended = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        ensure!(started.elapsed() < PATIENCE, "iiet neither ends nor saves");
        let due = match &kill {
            None => false,
            Some(Moment::After(delay)) => started.elapsed() >= *delay,
            Some(Moment::Save { saves, then }) => {
                let now = saving(run, born);
                if now && !was_saving {
                    if saves_seen == *saves {
                        began = Some(Instant::now());
                    }
                    saves_seen += 1;
                }
                was_saving = now;
                began.is_some_and(|began| began.elapsed() >= *then)
            }
        };
        if due {
            child.kill().context("cannot kill iiet")?;
            break None;
        }
        sleep(Duration::from_micros(100));
    };
    if let Some(status) = ended {
        let errors = fs::read_to_string(&log).unwrap_or_default();
        ensure!(status.success(), "{status} without being killed:\n{errors}");
        return Ok(End::Complete);
    }
    child.wait()?;
    Ok(End::Killed {
        during_a_save: saving(run, born),
    })
}

/// Whether a checkpoint is being written by a process that started at `born`; an earlier process may have
/// left an incomplete one.
pub(super) fn saving(run: &Path, born: SystemTime) -> bool {
    let entries = fs::read_dir(run.join("checkpoints")).into_iter().flatten();
    entries.flatten().any(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let written = entry.metadata().and_then(|metadata| metadata.modified());
        name.starts_with(".step-")
            && name.ends_with(".partial")
            && written.is_ok_and(|written| written >= born)
    })
}
