//! Damaged and invented input of every kind: the outcome must be an error that describes the problem, or a
//! result; never a panic, an abort, a hang, or excessive memory.
//!
//! Case n depends only on the seed and n, so a failing case can be repeated alone.

mod mutate;
mod targets;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};

use self::mutate::mutate;
use self::targets::Target;
use super::child::{as_typed, watch};
use super::random::Random;
use super::workload::{contents, copy};
use super::world::{World, size};

/// The number of faults after which to stop.
const FAULTS: usize = 20;

pub(super) struct Inputs {
    cases: u64,
    /// By kind of input: accepted, rejected.
    by_kind: BTreeMap<&'static str, (u64, u64)>,
    seconds: f64,
}

impl fmt::Display for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "damaged input     {} cases, accepted and rejected:",
            self.cases
        )?;
        for (kind, (accepted, refused)) in &self.by_kind {
            write!(f, " {kind} {accepted} {refused};")?;
        }
        write!(f, " {:.0} s", self.seconds)
    }
}

/// Runs the cases `first..first + count`, or one kind of them, after checking that each command accepts
/// undamaged input.
pub(super) fn run(
    world: &World,
    seed: u64,
    first: u64,
    count: u64,
    only: Option<&str>,
) -> anyhow::Result<Inputs> {
    let started = Instant::now();
    let targets = targets::all(world)?;
    let mut done = Inputs {
        cases: 0,
        by_kind: BTreeMap::new(),
        seconds: 0.0,
    };
    let mut faults = Vec::new();
    for target in &targets {
        if only.is_none_or(|only| only == target.name) {
            undamaged(world, target)?;
        }
    }
    for case in first..first + count {
        // One more kind: numbers on the command line.
        let kind = (case % (targets.len() as u64 + 1)) as usize;
        let target = targets.get(kind);
        let name = target.map_or("arguments", |target| target.name);
        if only.is_some_and(|only| only != name) {
            continue;
        }
        let mut random = Random::new(seed.wrapping_mul(1 << 32).wrapping_add(case));
        let found = match target {
            Some(target) => damaged(world, target, &mut random),
            None => invented(world, &mut random),
        };
        done.cases += 1;
        let counts = done.by_kind.entry(name).or_default();
        match found? {
            Found::Accepted => counts.0 += 1,
            Found::Refused => counts.1 += 1,
            Found::Fault(fault) => {
                let kept = world.scratch.join(format!("fault-{case}"));
                fs::rename(world.scratch.join("case"), &kept)?;
                let fault = fault.replace(
                    &world.scratch.join("case").display().to_string(),
                    &kept.display().to_string(),
                );
                eprintln!("case {case} ({name}): {fault}\n");
                faults.push(case);
                if faults.len() >= FAULTS {
                    break;
                }
            }
        }
    }
    done.seconds = started.elapsed().as_secs_f64();
    if !faults.is_empty() {
        bail!(
            "{} of {} damaged inputs were not handled; repeat with\n  cargo xtask torture --seed {seed} --case {}\n\
             the files are kept in {}",
            faults.len(),
            done.cases,
            faults[0],
            world.scratch.display()
        );
    }
    Ok(done)
}

enum Found {
    Accepted,
    Refused,
    /// The outcome, and the command.
    Fault(String),
}

/// An empty directory for a case.
fn fresh(world: &World) -> anyhow::Result<PathBuf> {
    let case = world.scratch.join("case");
    if case.exists() {
        fs::remove_dir_all(&case).context("cannot clear the last case")?;
    }
    fs::create_dir_all(case.join("out"))?;
    Ok(case)
}

/// Every command of a target must accept undamaged input, or the cases would prove nothing.
fn undamaged(world: &World, target: &Target) -> anyhow::Result<()> {
    for template in target.commands {
        let case = fresh(world)?;
        let copied = copied(target, &case)?;
        let mut command = fill(world, template.iter().copied(), &case, &copied)?;
        world.must(&mut command)?;
    }
    Ok(())
}

/// A copy of a target's files.
fn copied(target: &Target, case: &Path) -> anyhow::Result<PathBuf> {
    let copied = case.join(target.from.file_name().unwrap_or_default());
    match target.from.is_dir() {
        true => copy(&target.from, &copied)?,
        false => drop(fs::copy(&target.from, &copied)?),
    }
    Ok(copied)
}

fn damaged(world: &World, target: &Target, random: &mut Random) -> anyhow::Result<Found> {
    let case = fresh(world)?;
    let copied = copied(target, &case)?;
    let path = match copied.is_dir() {
        true => chosen(&copied, target, random)?,
        false => copied.clone(),
    };
    let before = fs::read(&path)?;
    let changed = mutate(&before, random);
    fs::write(&path, &changed)?;
    let template = target.commands[random.below(target.commands.len() as u64) as usize];
    let command = fill(world, template.iter().copied(), &case, &copied)?;
    let manifest = path.ends_with("iiet-manifest.json");
    let unnoticed = target.covered && !manifest && changed != before;
    judge(world, command, size(&case), unnoticed, &path)
}

/// One of the files of a target.
fn chosen(folder: &Path, target: &Target, random: &mut Random) -> anyhow::Result<PathBuf> {
    let mut files: Vec<PathBuf> = contents(folder)?
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    files.retain(|path| {
        let path = path.to_string_lossy();
        target.files.iter().any(|end| path.ends_with(end))
    });
    let at = random.below(files.len() as u64) as usize;
    files
        .into_iter()
        .nth(at)
        .with_context(|| format!("{}: no file to damage", target.name))
}

fn invented(world: &World, random: &mut Random) -> anyhow::Result<Found> {
    let case = fresh(world)?;
    let arguments = targets::arguments(random);
    let command = fill(world, arguments.iter().map(String::as_str), &case, &case)?;
    judge(world, command, 0, false, &case)
}

/// The command of a template.
fn fill<'a>(
    world: &World,
    template: impl Iterator<Item = &'a str>,
    case: &Path,
    copied: &Path,
) -> anyhow::Result<Command> {
    let corpus = world.corpus()?;
    let mut command = world.iiet(&[]);
    for word in template {
        let word = word
            .replace("{out}", &case.join("out").display().to_string())
            .replace("{corpus}", &corpus.display().to_string())
            .replace("{}", &copied.display().to_string());
        command.arg(word);
    }
    Ok(command)
}

fn judge(
    world: &World,
    mut command: Command,
    input: u64,
    unnoticed_is_a_fault: bool,
    path: &Path,
) -> anyhow::Result<Found> {
    let ended = watch(&mut command, &world.scratch, None)?;
    let fault = match ended.fault(input) {
        None if ended.success() && unnoticed_is_a_fault => {
            Some("accepts a file that its manifest does not record".to_owned())
        }
        fault => fault,
    };
    Ok(match fault {
        Some(fault) => Found::Fault(format!(
            "{fault}\n  {}\n  damaged: {}\n  {}",
            as_typed(&command),
            path.display(),
            tail(&ended.errors)
        )),
        None if ended.success() => Found::Accepted,
        None => Found::Refused,
    })
}

/// The last lines of a command's output.
fn tail(errors: &str) -> String {
    let lines: Vec<&str> = errors.lines().filter(|line| !line.is_empty()).collect();
    let cut = |line: &&str| line.chars().take(300).collect::<String>();
    let panic = lines.iter().position(|line| line.contains("panicked at"));
    let from = panic.unwrap_or(lines.len().saturating_sub(3));
    let shown = lines[from..].iter().take(3).map(cut);
    shown.collect::<Vec<_>>().join("\n  ")
}
