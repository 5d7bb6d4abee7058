//! `cargo xtask torture`: what docs/reliability.md promises, tried out on the real `iiet`.
//!
//! A small run (two sources, two stages, accumulation, several epochs) is trained once without
//! disturbance. Then it is killed, damaged, starved of disk and fed with numbers that are none, and
//! every time the same command that a user would give, `iiet train --resume`, must end with the
//! losses and weights of the undisturbed run to the last bit, or with an error that says what to do.

mod corruption;
mod disk;
mod kills;
mod numbers;
mod random;
mod workload;

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, bail};

use self::random::Random;
use self::workload::Workload;

/// How much of everything.
struct Extent {
    steps: u64,
    kills: u64,
    corruptions: u64,
    disk_sizes: u64,
    seed: u64,
}

const HELP: &str = "\
cargo xtask torture [--short] [--seed N]

Kills, damages and starves training runs of the real iiet, and compares with an undisturbed one.

  --short    the form of the checks before a change: about half a minute
  --seed N   other moments and places [default: 1]";

/// Set for the process that runs inside a mount namespace of its own.
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
    let place = tempfile::tempdir().context("cannot make a temporary folder")?;
    let workload = Workload::prepare(workspace, iiet, place.path(), extent.steps)?;
    println!(
        "clean run         {} steps in {:.1} s: two sources, two stages, accumulation 2, {:.1} epochs of the smaller source",
        extent.steps, workload.clean_seconds, workload.epochs,
    );
    let mut random = Random::new(extent.seed);
    println!("{}", kills::run(&workload, &extent, &mut random)?);
    println!("{}", corruption::run(&workload, &extent, &mut random)?);
    println!("{}", disk::run(&workload, &extent)?);
    println!("{}", numbers::run(&workload)?);
    println!(
        "all as promised   {:.0} s, seed {}",
        started.elapsed().as_secs_f64(),
        extent.seed
    );
    Ok(ExitCode::SUCCESS)
}

fn parse(arguments: &[OsString]) -> anyhow::Result<Option<Extent>> {
    let mut extent = Extent {
        steps: 120,
        kills: 120,
        corruptions: 240,
        disk_sizes: 10,
        seed: 1,
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.to_str() {
            Some("--short") => {
                extent = Extent {
                    steps: 40,
                    kills: 10,
                    corruptions: 28,
                    disk_sizes: 2,
                    ..extent
                };
            }
            Some("--seed") => {
                let value = rest.next().and_then(|value| value.to_str()?.parse().ok());
                extent.seed = value.context("--seed needs a number")?;
            }
            Some("--help" | "-h") => return Ok(None),
            _ => bail!("torture: unknown option {argument:?}\n\n{HELP}"),
        }
    }
    Ok(Some(extent))
}

/// Runs the same command again where file systems can be mounted without anybody else seeing them;
/// `None` if this is that place, or if the system allows none.
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
