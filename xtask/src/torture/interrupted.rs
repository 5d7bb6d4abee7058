//! SIGKILL at any moment of every command that writes files: each file is complete or absent, and repeating
//! the command gives the result of an uninterrupted run.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::child::{as_typed, watch};
use super::random::Random;
use super::workload::contents;
use super::world::{World, is_hidden};

pub(super) struct Interrupted {
    kills: u64,
    commands: usize,
    seconds: f64,
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "interrupted       {} kills of {} commands that write files; every file complete or absent, and then the result of an uninterrupted run; {:.0} s",
            self.kills, self.commands, self.seconds
        )
    }
}

struct Work {
    /// `{corpus}` is replaced by the prepared corpus. All commands write below `k`.
    arguments: &'static [&'static str],
    /// The command that continues the work, if part of it exists.
    resume: Option<(&'static [&'static str], &'static str)>,
    /// Files that must be bitwise identical in the end.
    same: &'static [&'static str],
    /// JSON files that must be complete if they exist, although times differ.
    whole: &'static [&'static str],
}

const WORKS: &[Work] = &[
    Work {
        arguments: &[
            "data",
            "prepare",
            "--config",
            "teacher.toml",
            "--set",
            "data.cache=k/cache",
            "--set",
            "data.source=rows.jsonl",
        ],
        resume: None,
        same: &["train.tokens", "validation.tokens", "tokenizer.json"],
        whole: &[],
    },
    Work {
        arguments: &[
            "convert",
            "--model",
            "llama",
            "--solver",
            "implicit_euler",
            "--out",
            "k/m",
        ],
        resume: None,
        same: &[
            "m/config.json",
            "m/model.safetensors",
            "m/tokenizer.json",
            "m/iiet-manifest.json",
        ],
        whole: &["m/iiet-manifest.json"],
    },
    Work {
        arguments: &[
            "eval",
            "--model",
            "llama",
            "--tasks",
            "piqa,arc_easy",
            "--data",
            "eval",
            "--out",
            "k/e.json",
            "--log-samples",
        ],
        resume: None,
        same: &[],
        whole: &["e.json"],
    },
    Work {
        arguments: &[
            "influence",
            "--model",
            "teacher/model",
            "--data",
            "{corpus}",
            "--tokens",
            "2048",
            "--out",
            "k/i.json",
        ],
        resume: None,
        same: &["i.json", "i.svg"],
        whole: &["i.json"],
    },
    Work {
        arguments: &[
            "compare", "--model", "llama", "--tasks", "piqa", "--data", "eval", "--out", "k/c.json",
        ],
        resume: None,
        same: &[],
        whole: &["c.json"],
    },
    Work {
        arguments: &[
            "distill",
            "--teacher",
            "teacher/model",
            "--config",
            "student.toml",
            "--run",
            "k/d",
            "--evaluations",
            "2",
        ],
        resume: Some((&["distill", "--resume", "--run", "k/d"], "d/config.toml")),
        same: &["d/model/model.safetensors", "d/model/config.json"],
        whole: &[],
    },
    Work {
        arguments: &[
            "sweep",
            "--config",
            "teacher.toml",
            "--budget",
            "6",
            "--grid",
            "train.lr=1e-2,2e-2",
            "--out",
            "k/s",
        ],
        resume: None,
        same: &[
            "lr=0.01_seed=0/model/model.safetensors",
            "lr=0.02_seed=0/model/model.safetensors",
        ],
        whole: &[],
    },
    Work {
        arguments: &[
            "score",
            "--hypotheses",
            "text.txt",
            "--references",
            "text.txt",
            "--segments",
            "--out",
            "k/score.json",
        ],
        resume: None,
        same: &["score.json"],
        whole: &["score.json"],
    },
];

pub(super) fn run(world: &World, kills: u64, random: &mut Random) -> anyhow::Result<Interrupted> {
    let started = Instant::now();
    let each = kills.div_ceil(WORKS.len() as u64);
    for work in WORKS {
        clear(world)?;
        let calm = Instant::now();
        world.must(&mut command(world, work.arguments)?)?;
        let duration = calm.elapsed();
        let expected = files(world, work.same)?;
        ensure!(
            expected.len() == work.same.len(),
            "{:?}: {expected:?}",
            work.arguments
        );
        let mut left = each;
        while left > 0 {
            clear(world)?;
            // Some are killed repeatedly before they finish.
            for _ in 0..(1 + random.below(3)).min(left) {
                let micros = duration.as_micros() as u64 * 11 / 10;
                let after = Duration::from_micros(random.below(micros));
                let mut killed = next(world, work)?;
                let ended = watch(&mut killed, &world.scratch, Some(after))?;
                ensure!(
                    !ended.errors.contains("panicked"),
                    "{}: {}",
                    as_typed(&killed),
                    ended.errors
                );
                whole(world, work)?;
                left -= 1;
            }
            finish(world, work)?;
            for ((name, bytes), (_, expected)) in files(world, work.same)?.iter().zip(&expected) {
                ensure!(
                    bytes == expected,
                    "{name} differs after kills of {:?}",
                    work.arguments
                );
            }
        }
    }
    Ok(Interrupted {
        kills: each * WORKS.len() as u64,
        commands: WORKS.len(),
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Repeats the command, unless a kill came after the end of its work.
fn finish(world: &World, work: &Work) -> anyhow::Result<()> {
    let converted = world.path("k/m/iiet-manifest.json").exists();
    let ended = watch(&mut next(world, work)?, &world.scratch, None)?;
    ensure!(
        ended.success() || (converted && ended.errors.contains("not empty")),
        "{:?} after kills: {}",
        work.arguments,
        ended.errors
    );
    whole(world, work)
}

fn next(world: &World, work: &Work) -> anyhow::Result<Command> {
    match work.resume {
        Some((resume, begun)) if world.path("k").join(begun).exists() => command(world, resume),
        _ => command(world, work.arguments),
    }
}

fn command(world: &World, template: &[&str]) -> anyhow::Result<Command> {
    let corpus = world.corpus()?.display().to_string();
    let mut command = world.iiet(&[]);
    command.args(
        template
            .iter()
            .map(|word| word.replace("{corpus}", &corpus)),
    );
    Ok(command)
}

fn clear(world: &World) -> anyhow::Result<()> {
    let folder = world.path("k");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(folder).context("cannot make a folder")
}

/// The files with these suffixes and their content, in the order of the suffixes.
fn files(world: &World, names: &[&str]) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let folder = world.path("k");
    let found = contents(&folder)?;
    let visible = |path: &Path| !is_hidden(path, &folder);
    let by_name = |name: &&str| {
        let mut ending = found
            .iter()
            .filter(|(path, _)| path.ends_with(name) && visible(path));
        let (_, bytes) = ending.next()?;
        Some(((*name).to_owned(), bytes.clone()))
    };
    Ok(names.iter().filter_map(by_name).collect())
}

fn whole(world: &World, work: &Work) -> anyhow::Result<()> {
    for (name, bytes) in files(world, work.whole)? {
        let read = serde_json::from_slice::<Value>(&bytes);
        ensure!(
            read.is_ok(),
            "{name} is incomplete after {:?}",
            work.arguments
        );
    }
    Ok(())
}
