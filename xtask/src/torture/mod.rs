//! `cargo xtask torture`: tests the guarantees of docs/reliability.md with the real `iiet`.
//!
//! A small run (two sources, two stages, accumulation, several epochs) is trained once without disturbance, and an
//! encoder-decoder too.
//! Then it is killed, its files are damaged, the disk is filled, and non-finite values are provoked. Each
//! time the command that a user would type, `iiet train --resume`, must end with the losses and weights of
//! the undisturbed run, bitwise, or with an error that names the remedy.
//!
//! Then all commands are tested: with damaged and invented input, with pipes and devices, with kills, with
//! another process on the same run, and with little memory. With `--ranks`, runs over several processes are tested
//! instead.

mod child;
mod corruption;
mod disk;
mod giants;
mod inputs;
mod interrupted;
mod kills;
mod numbers;
mod random;
mod ranks;
mod streams;
mod together;
mod workload;
mod world;

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, bail};

use self::random::Random;
use self::workload::Workload;
use self::world::World;

/// The extent of the tests.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Extent {
    steps: u64,
    kills: u64,
    corruptions: u64,
    disk_sizes: u64,
    /// Number of damaged and invented inputs.
    inputs: u64,
    /// Decompressed size of small files, in MiB.
    giants: usize,
    /// Number of kills of commands other than train.
    interruptions: u64,
    pairs: u64,
    starved: u64,
    seed: u64,
    /// Run only this input.
    case: Option<u64>,
    /// Run only this part, or this kind of inputs.
    only: Option<String>,
    /// Test runs over so many processes, and nothing else.
    ranks: Option<u64>,
}

const HELP: &str = "\
cargo xtask torture [--short] [--seed N] [--inputs N] [--kills N] [--only PART] [--case N] [--ranks N]

Kills and damages training runs of the real iiet and compares them with an undisturbed one. Then
tests every command with damaged input, pipes, kills and little memory.

  --short      a short form, run before every change: less than a minute
  --seed N     RNG seed of the moments and positions [default: 1]
  --inputs N   damaged and invented inputs [default: 3000]
  --kills N    kills of training, and the same number of other commands [default: 120]
  --only PART  run only training, giants, streams, kills, together, inputs, or inputs of one kind,
               such as tokenizer or arguments
  --case N     run only input N of the seed
  --ranks N    instead of all this, runs over N processes, with MPI: kills, stopped processes, a full
               disk and other text on one of them";

/// Set for the process that runs in a separate mount namespace.
const INSIDE: &str = "IIET_TORTURE_INSIDE";

pub(crate) fn run(
    arguments: &[OsString],
    workspace: &Path,
    iiet: &Path,
) -> anyhow::Result<ExitCode> {
    let Some(extent) = parse(arguments)? else {
        println!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    };
    if let Some(code) = enter_namespace(arguments)? {
        return Ok(code);
    }
    let started = Instant::now();
    let place = tempfile::tempdir().context("cannot create a temporary directory")?;
    let attacked = attack(workspace, iiet, place.path(), &extent);
    if attacked.is_err() {
        // The files of a failing case are kept for inspection.
        let _ = place.keep();
    }
    attacked?;
    println!(
        "all passed        {:.0} s, seed {}",
        started.elapsed().as_secs_f64(),
        extent.seed
    );
    Ok(ExitCode::SUCCESS)
}

fn attack(workspace: &Path, iiet: &Path, place: &Path, extent: &Extent) -> anyhow::Result<()> {
    let seed = extent.seed;
    if let Some(ranks) = extent.ranks {
        return ranks::run(
            workspace,
            iiet,
            place,
            (ranks, extent),
            &mut Random::new(seed),
        );
    }
    let world = World::prepare(workspace, iiet, place)?;
    if let Some(case) = extent.case {
        println!("{}", inputs::run(&world, seed, case, 1, None)?);
        return Ok(());
    }
    let mut random = Random::new(seed);
    let wanted = |part: &str| extent.only.as_deref().is_none_or(|only| only == part);
    if wanted("training") {
        training(workspace, iiet, place, extent, &mut random)?;
    }
    if wanted("giants") {
        println!("{}", giants::run(&world, extent.giants)?);
    }
    if wanted("streams") {
        println!("{}", streams::run(&world)?);
    }
    if wanted("kills") {
        let kills = interrupted::run(&world, extent.interruptions, &mut random)?;
        println!("{kills}");
    }
    if wanted("together") {
        let together = together::run(&world, extent.pairs, extent.starved, &mut random)?;
        println!("{together}");
    }
    let parts = ["training", "giants", "streams", "kills", "together"];
    match extent.only.as_deref() {
        Some(only) if parts.contains(&only) => {}
        None | Some("inputs") => {
            println!("{}", inputs::run(&world, seed, 0, extent.inputs, None)?);
        }
        kind => println!("{}", inputs::run(&world, seed, 0, extent.inputs, kind)?),
    }
    Ok(())
}

/// An undisturbed run, and disturbed ones that must give the same result.
fn training(
    workspace: &Path,
    iiet: &Path,
    place: &Path,
    extent: &Extent,
    random: &mut Random,
) -> anyhow::Result<()> {
    let workload = Workload::texts(
        workspace,
        (iiet, &[]),
        place,
        extent.steps,
        "accumulation = 2",
    )?;
    println!(
        "clean run         {} steps in {:.1} s: two sources, two stages, accumulation 2, {:.1} epochs of the smaller source",
        extent.steps, workload.clean_seconds, workload.epochs,
    );
    println!("{}", kills::run(&workload, extent.kills, random)?);
    println!("{}", corruption::run(&workload, extent, random)?);
    println!("{}", disk::run(&workload, extent)?);
    println!("{}", numbers::run(&workload)?);
    let steps = extent.steps / 2;
    let workload = Workload::sequences(workspace, iiet, place, steps)?;
    println!(
        "clean run         {steps} steps in {:.1} s: an encoder-decoder, two stages, dropout, accumulation 2, {:.1} epochs",
        workload.clean_seconds, workload.epochs,
    );
    let kills = extent.kills.div_ceil(4);
    println!("{}", kills::run(&workload, kills, random)?);
    Ok(())
}

fn parse(arguments: &[OsString]) -> anyhow::Result<Option<Extent>> {
    let mut extent = Extent {
        steps: 120,
        kills: 120,
        corruptions: 240,
        disk_sizes: 10,
        inputs: 3000,
        giants: 512,
        interruptions: 120,
        pairs: 10,
        starved: 60,
        seed: 1,
        case: None,
        only: None,
        ranks: None,
    };
    if arguments.iter().any(|argument| argument == "--short") {
        extent = Extent {
            steps: 40,
            kills: 10,
            corruptions: 28,
            disk_sizes: 2,
            inputs: 78,
            giants: 32,
            interruptions: 6,
            pairs: 1,
            starved: 5,
            ..extent
        };
    }
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let name = argument.to_str().unwrap_or_default();
        let mut number = || {
            let value = rest.next().and_then(|value| value.to_str()?.parse().ok());
            value.with_context(|| format!("{name} needs a number"))
        };
        match name {
            "--short" => {}
            "--seed" => extent.seed = number()?,
            "--inputs" => extent.inputs = number()?,
            "--kills" => {
                extent.kills = number()?;
                extent.interruptions = extent.kills;
            }
            "--case" => extent.case = Some(number()?),
            "--ranks" => extent.ranks = Some(number()?),
            "--only" => {
                let kind = rest.next().and_then(|kind| kind.to_str());
                extent.only = Some(kind.context("--only needs a part")?.to_owned());
            }
            "--help" | "-h" => return Ok(None),
            _ => bail!("torture: unknown option {argument:?}\n\n{HELP}"),
        }
    }
    Ok(Some(extent))
}

/// Runs the same command again in a separate mount namespace; `None` if this process is in it already, or if
/// the system does not allow one.
fn enter_namespace(arguments: &[OsString]) -> anyhow::Result<Option<ExitCode>> {
    let unshare = |program: &Path| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount"]).arg(program);
        command
    };
    let allowed = unshare(Path::new("true")).output();
    let allowed = allowed.is_ok_and(|output| output.status.success());
    if std::env::var_os(INSIDE).is_some() || !allowed {
        return Ok(None);
    }
    let own = std::env::current_exe().context("cannot find the running program")?;
    let status = unshare(&own)
        .arg("torture")
        .args(arguments)
        .env(INSIDE, "1")
        .status()
        .context("cannot run unshare")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(Some(ExitCode::from(code.unwrap_or(1))))
}
