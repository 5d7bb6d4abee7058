//! Two processes with one run directory, and processes with little memory.

use std::fmt;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::child::{as_typed, watch, with_address_space};
use super::random::Random;
use super::workload::contents;
use super::world::{World, is_hidden};

pub(super) struct Together {
    pairs: u64,
    starved: u64,
    seconds: f64,
}

impl fmt::Display for Together {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "two at once       {} pairs of processes on one run directory: one run with the same result, and the other rejected\nlittle memory     {} limits of the address space: a message and exit code 1, or the result; {:.0} s",
            self.pairs, self.starved, self.seconds
        )
    }
}

pub(super) fn run(
    world: &World,
    pairs: u64,
    starved: u64,
    random: &mut Random,
) -> anyhow::Result<Together> {
    let started = Instant::now();
    let weights = |run: &str| fs::read(world.path(run).join("model/model.safetensors"));
    let expected = weights("teacher")?;
    for _ in 0..pairs {
        let run = world.path("pair");
        if run.exists() {
            fs::remove_dir_all(&run)?;
        }
        let train = || world.iiet(&["train", "--config", "teacher.toml", "--run", "pair"]);
        let mut first = train()
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run iiet")?;
        std::thread::sleep(Duration::from_micros(random.below(150_000)));
        let second = watch(&mut train(), &world.scratch, None)?;
        let status = first.wait()?;
        ensure!(
            status.success() != second.success(),
            "two processes on one run: {status} and {}",
            second.errors
        );
        ensure!(
            second.fault(0).is_none(),
            "the second process on a run: {}",
            second.errors
        );
        ensure!(
            weights("pair")? == expected,
            "two processes on one run interfere"
        );
        let lines = fs::read_to_string(run.join("metrics.jsonl"))?
            .lines()
            .count();
        ensure!(
            lines == 12,
            "two processes on one run left {lines} of 12 records"
        );
    }
    let commands: &[&[&str]] = &[
        &["train", "--config", "teacher.toml", "--run", "starved/run"],
        &[
            "generate",
            "--model",
            "teacher/model",
            "--prompt",
            "a",
            "--max-tokens",
            "4",
        ],
        &[
            "eval",
            "--model",
            "llama",
            "--tasks",
            "piqa",
            "--data",
            "eval",
            "--out",
            "starved/e.json",
        ],
        &[
            "convert",
            "--model",
            "llama",
            "--solver",
            "explicit_euler",
            "--out",
            "starved/m",
        ],
        &[
            "data",
            "prepare",
            "--config",
            "teacher.toml",
            "--set",
            "data.cache=starved/cache",
        ],
    ];
    for at in 0..starved {
        let folder = world.path("starved");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let arguments = commands[(at % commands.len() as u64) as usize];
        let command = world.iiet(arguments);
        // From barely enough for the program itself to enough for everything.
        let limit = (40 + random.below(400)) << 20;
        let mut limited = with_address_space(&command, limit);
        limited.current_dir(world.path("."));
        let ended = watch(&mut limited, &world.scratch, None)?;
        // The system's loader and the shell have their own exit codes.
        let loader = ended
            .errors
            .contains("error while loading shared libraries");
        if let Some(fault) = ended.fault(0).filter(|_| !loader) {
            anyhow::bail!(
                "{} with {} MiB: {fault}\n{}",
                as_typed(&command),
                limit >> 20,
                ended.errors
            );
        }
        for (path, bytes) in contents(&folder)? {
            let partial = is_hidden(&path, &folder);
            let json = path.extension().is_some_and(|ending| ending == "json") && !partial;
            let read = serde_json::from_slice::<serde_json::Value>(&bytes);
            ensure!(!json || read.is_ok(), "{}: incomplete", path.display());
        }
    }
    Ok(Together {
        pairs,
        starved,
        seconds: started.elapsed().as_secs_f64(),
    })
}
