//! Files cut short and bits flipped, in every kind of file that a run reads.

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
            "damaged files     {} places (cut short or a bit flipped) in {} files;",
            self.cases, self.files
        )?;
        for (outcome, count) in &self.by_outcome {
            write!(f, " {count} {outcome};")?;
        }
        write!(f, " {:.0} s", self.seconds)
    }
}

/// A file and what its damage must lead to.
enum Target {
    /// Of the newest checkpoint, by name: it is passed over, the one before is gone on from.
    Checkpoint(String),
    /// Of a prepared corpus: it is prepared again.
    Corpus(PathBuf),
    /// The run's own `config.toml`: it is a record, the checkpoint has its own.
    Record,
    /// The configuration given beside `--resume`: refused, or what it changes is said.
    Given,
    /// Of the exported model, by name: not loaded.
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
    /// The first byte, the last, and then anywhere; cut and flipped in turn.
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
            Self::Cut(at) => write!(f, "cut at byte {at}"),
            Self::Flip(at, bit) => write!(f, "bit {bit} of byte {at} flipped"),
        }
    }
}

/// Every target in turn, until there were enough cases.
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

/// One case; the word for how it ended well.
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
        return Ok("empty files left as they were");
    }
    // The corpora are compared by the time of their sources, not by their own.
    fs::write(&path, damaged).with_context(|| path.display().to_string())?;
    let judged = judge(workload, target, &run, &what);
    if let Target::Given | Target::Corpus(_) = target {
        fs::create_dir_all(path.parent().context("a file in a folder")?)?;
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
    let says = |words: &str| {
        ensure!(
            errors.contains(words),
            "{what}: {words:?} not said:\n{errors}"
        );
        Ok(())
    };
    match target {
        Target::Checkpoint(name) => {
            ensure!(*success, "{what}: not resumed:\n{errors}");
            says("passed over")?;
            let passed = errors.lines().find(|line| line.starts_with("passed over"));
            ensure!(
                passed.is_some_and(|line| line.contains(name.as_str())),
                "{what}: {name} not named:\n{errors}"
            );
            workload.compare(run, what)?;
            Ok("passed over for the checkpoint before")
        }
        Target::Corpus(path) => {
            ensure!(*success, "{what}: not resumed:\n{errors}");
            workload.compare(run, what)?;
            let again =
                errors.contains("preparing it again") || errors.contains("training it again");
            let is = |file: &str| path.file_name().is_some_and(|name| name == file);
            // The hashes of sources are remembered to save time; without them they are read again.
            let (informative, remembered) = (is("manifest.json"), is(".contents.json"));
            ensure!(
                again || informative || remembered,
                "{what}: not noticed:\n{errors}"
            );
            Ok(match again {
                true => "prepared again",
                false if remembered => "in what is only remembered",
                false => "in words that nothing depends on",
            })
        }
        Target::Record => {
            ensure!(*success, "{what}: not resumed:\n{errors}");
            workload.compare(run, what)?;
            Ok("in a record that a resume does not need")
        }
        Target::Given if *success => {
            let same = workload.compare(run, what).is_ok();
            ensure!(
                same || errors.contains(" was "),
                "{what}: not said:\n{errors}"
            );
            Ok(match same {
                true => "without a difference to the run",
                false => "read as an allowed change, and said so",
            })
        }
        Target::Given => {
            says("error: ")?;
            Ok("refused with what is wrong")
        }
        Target::Model(name) => {
            ensure!(!success, "{what}: loaded");
            says(name)?;
            Ok("not loaded, the file named")
        }
    }
}
