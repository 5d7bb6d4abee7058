//! Truncation and flipped bits in every kind of file that a run reads.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};

use super::Extent;
use super::random::Random;
use super::workload::{Ended, Workload, contents};

pub(super) struct Corruptions {
    cases: u64,
    files: u64,
    by_outcome: BTreeMap<&'static str, u64>,
    seconds: f64,
}

impl fmt::Display for Corruptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "damaged files     {} places (truncated or a bit flipped) in {} files;",
            self.cases, self.files
        )?;
        for (outcome, count) in &self.by_outcome {
            write!(f, " {count} {outcome};")?;
        }
        write!(f, " {:.0} s", self.seconds)
    }
}

/// A file and the required reaction to its damage.
enum Target {
    /// A file of the newest checkpoint, by name: it is passed over, and the run resumes from the
    /// previous one.
    Checkpoint(String),
    /// A file of a prepared corpus: it is prepared again.
    Corpus(PathBuf),
    /// The run's own `config.toml`: not used, because the checkpoint has a copy.
    Record,
    /// The configuration given with `--resume`: an error, or a report of what has changed.
    Given,
    /// A file of the exported model, by name: an error.
    Model(String),
}

impl Target {
    fn name(&self) -> String {
        match self {
            Self::Checkpoint(name) => format!("checkpoint {name}"),
            Self::Corpus(path) => format!("corpus {}", path.display()),
            Self::Record => "run config.toml".into(),
            Self::Given => "--config".into(),
            Self::Model(name) => format!("model {name}"),
        }
    }
}

#[derive(Clone, Copy)]
enum Damage {
    Cut(usize),
    Flip(usize, u32),
}

impl Damage {
    /// The first byte, the last, and then random positions; truncation and flips in turn.
    fn choose(case: u64, length: usize, random: &mut Random) -> Self {
        let last = length.saturating_sub(1);
        let at = match case {
            0 => 0,
            1 => last,
            _ => random.below(length as u64) as usize,
        };
        match case % 3 {
            0 => Self::Cut(at),
            _ => Self::Flip(at, random.below(8) as u32),
        }
    }

    fn apply(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Cut(at) => bytes[..at].to_vec(),
            Self::Flip(at, bit) => {
                let mut bytes = bytes.to_vec();
                bytes[at] ^= 1 << bit;
                bytes
            }
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut(at) => write!(f, "truncated at byte {at}"),
            Self::Flip(at, bit) => write!(f, "bit {bit} of byte {at} flipped"),
        }
    }
}

/// All targets in turn, until the number of cases is reached.
pub(super) fn run(
    workload: &Workload,
    extent: &Extent,
    random: &mut Random,
) -> anyhow::Result<Corruptions> {
    let started = Instant::now();
    let targets = targets(workload)?;
    let mut done = Corruptions {
        cases: 0,
        files: targets.len() as u64,
        by_outcome: BTreeMap::new(),
        seconds: 0.0,
    };
    for at in 0..extent.corruptions.max(targets.len() as u64) {
        let target = &targets[(at % done.files) as usize];
        let outcome = damage(workload, target, at / done.files, random)?;
        done.cases += 1;
        *done.by_outcome.entry(outcome).or_default() += 1;
    }
    done.seconds = started.elapsed().as_secs_f64();
    Ok(done)
}

fn targets(workload: &Workload) -> anyhow::Result<Vec<Target>> {
    let names = |folder: &Path| -> anyhow::Result<Vec<String>> {
        let files = contents(folder)?.into_iter();
        Ok(files
            .filter_map(|(path, _)| Some(path.file_name()?.to_str()?.to_owned()))
            .collect())
    };
    let checkpoint = names(&workload.checkpoint(&workload.clean, 0))?;
    let model = names(&workload.clean.join("model"))?;
    let corpus = contents(&workload.cache())?.into_iter();
    let corpus = corpus
        .map(|(path, _)| path)
        .filter(|path| path.extension().is_none_or(|ending| ending != "lock"));
    let mut targets: Vec<Target> = checkpoint.into_iter().map(Target::Checkpoint).collect();
    targets.extend(corpus.map(Target::Corpus));
    targets.extend([Target::Record, Target::Given]);
    targets.extend(model.into_iter().map(Target::Model));
    Ok(targets)
}

/// Runs one case; returns a description of the successful outcome.
fn damage(
    workload: &Workload,
    target: &Target,
    case: u64,
    random: &mut Random,
) -> anyhow::Result<&'static str> {
    let run = match target {
        Target::Checkpoint(_) | Target::Model(_) => workload.complete("damaged")?,
        _ => workload.almost_complete("damaged")?,
    };
    let path = match target {
        Target::Checkpoint(name) => workload.checkpoint(&run, 0).join(name),
        Target::Corpus(path) => path.clone(),
        Target::Record => run.join("config.toml"),
        Target::Given => workload.config().to_owned(),
        Target::Model(name) => run.join("model").join(name),
    };
    let before = fs::read(&path).with_context(|| path.display().to_string())?;
    let damage = Damage::choose(case, before.len(), random);
    let what = format!("{}, {damage}", target.name());
    let damaged = damage.apply(&before);
    if damaged == before {
        return Ok("empty files left unchanged");
    }
    // Corpora are compared by their sources' modification times, not by their own.
    fs::write(&path, damaged).with_context(|| path.display().to_string())?;
    let judged = judge(workload, target, &run, &what);
    if let Target::Given | Target::Corpus(_) = target {
        fs::create_dir_all(path.parent().context("a file in a directory")?)?;
        fs::write(&path, before)?;
    }
    judged
}

fn judge(
    workload: &Workload,
    target: &Target,
    run: &Path,
    what: &str,
) -> anyhow::Result<&'static str> {
    let mut command = match target {
        Target::Model(_) => {
            let mut command = workload.iiet(["logits", "--ids", "1,2,3", "--model"]);
            command.arg(run.join("model"));
            command
                .arg("--out")
                .arg(workload.folder("logits.safetensors"));
            command
        }
        Target::Given => {
            let mut command = workload.start(run);
            // A flipped digit must not make the run a thousand times longer.
            command.args(["--resume", "--set"]);
            command.arg(format!("train.steps={}", workload.steps));
            command
        }
        _ => workload.resume(run),
    };
    command.current_dir(workload.folder(""));
    let ended = workload.run(command).with_context(|| what.to_owned())?;
    let Ended { success, errors } = &ended;
    let contains = |words: &str| {
        ensure!(
            errors.contains(words),
            "{what}: {words:?} not in the output:\n{errors}"
        );
        Ok(())
    };
    match target {
        Target::Checkpoint(name) => {
            ensure!(*success, "{what}: not resumed:\n{errors}");
            contains("passed over")?;
            let passed = errors.lines().find(|line| line.starts_with("passed over"));
            ensure!(
                passed.is_some_and(|line| line.contains(name.as_str())),
                "{what}: {name} not in the output:\n{errors}"
            );
            workload.compare(run, what)?;
            Ok("passed over for the previous checkpoint")
        }
        Target::Corpus(path) => {
            ensure!(*success, "{what}: not resumed:\n{errors}");
            workload.compare(run, what)?;
            let again =
                errors.contains("preparing it again") || errors.contains("training it again");
            let is = |file: &str| path.file_name().is_some_and(|name| name == file);
            // The cached hashes of sources only save time; without them the sources are read again.
            let (informative, remembered) = (is("manifest.json"), is(".contents.json"));
            ensure!(
                again || informative || remembered,
                "{what}: not detected:\n{errors}"
            );
            Ok(match again {
                true => "prepared again",
                false if remembered => "in the cache of hashes",
                false => "in informative text",
            })
        }
        Target::Record => {
            ensure!(*success, "{what}: not resumed:\n{errors}");
            workload.compare(run, what)?;
            Ok("in a record that a resume does not use")
        }
        Target::Given if *success => {
            let same = workload.compare(run, what).is_ok();
            ensure!(
                same || errors.contains(" was "),
                "{what}: not reported:\n{errors}"
            );
            Ok(match same {
                true => "without effect on the run",
                false => "reported as an allowed change",
            })
        }
        Target::Given => {
            contains("error: ")?;
            Ok("rejected with the reason")
        }
        Target::Model(name) => {
            ensure!(!success, "{what}: loaded");
            contains(name)?;
            Ok("rejected with the file's name")
        }
    }
}
