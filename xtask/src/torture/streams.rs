//! Closed pipes, full disks and files that are not regular, as input and as output.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};

use super::child::{as_typed, watch, watch_unheard};
use super::world::World;

pub(super) struct Streams {
    outputs: u64,
    inputs: u64,
    places: u64,
    seconds: f64,
}

impl fmt::Display for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "streams           {} times standard output or error closed or full, every result written; {} pipes, devices and dangling links rejected as input and {} as output; {:.0} s",
            self.outputs, self.inputs, self.places, self.seconds
        )
    }
}

/// Commands that print, and the files that they also write.
const PRINTING: &[(&[&str], &[&str])] = &[
    (&["devices"], &[]),
    (&["info", "--model", "teacher/model"], &[]),
    (
        &[
            "generate",
            "--model",
            "teacher/model",
            "--prompt",
            "a",
            "--max-tokens",
            "4",
        ],
        &[],
    ),
    (
        &[
            "generate",
            "--model",
            "teacher/model",
            "--batch",
            "prompts.txt",
            "--max-tokens",
            "4",
        ],
        &[],
    ),
    (&["data", "inspect", "--config", "teacher.toml"], &[]),
    (&["data", "prepare", "--config", "teacher.toml"], &[]),
    (
        &[
            "logits",
            "--model",
            "teacher/model",
            "--ids",
            "1,2",
            "--out",
            "s/l.safetensors",
        ],
        &["s/l.safetensors"],
    ),
    (
        &[
            "eval", "--model", "llama", "--tasks", "piqa", "--data", "eval", "--limit", "2",
            "--out", "s/e.json",
        ],
        &["s/e.json"],
    ),
    (
        &[
            "influence",
            "--model",
            "teacher/model",
            "--data",
            "{corpus}",
            "--tokens",
            "64",
            "--out",
            "s/i.json",
        ],
        &["s/i.json", "s/i.svg"],
    ),
    (
        &[
            "convert",
            "--model",
            "llama",
            "--solver",
            "explicit_euler",
            "--out",
            "s/m",
        ],
        &["s/m/config.json", "s/m/iiet-manifest.json"],
    ),
    (
        &[
            "train",
            "--config",
            "teacher.toml",
            "--run",
            "s/run",
            "--set",
            "train.steps=4",
        ],
        &[
            "s/run/metrics.jsonl",
            "s/run/model/iiet-manifest.json",
            "s/run/checkpoints/step-4/iiet-manifest.json",
        ],
    ),
    (
        &[
            "distill",
            "--teacher",
            "teacher/model",
            "--config",
            "student.toml",
            "--run",
            "s/d",
            "--evaluations",
            "2",
            "--set",
            "train.steps=2",
        ],
        &["s/d/metrics.jsonl", "s/d/model/iiet-manifest.json"],
    ),
];

/// Commands that read the path `{}`.
const READING: &[&[&str]] = &[
    &["info", "--model", "{}"],
    &[
        "generate",
        "--model",
        "teacher/model",
        "--max-tokens",
        "1",
        "--batch",
        "{}",
    ],
    &["data", "prepare", "--config", "{}"],
    &["data", "inspect", "{}"],
    &[
        "data",
        "prepare",
        "--config",
        "teacher.toml",
        "--set",
        "data.source={}",
        "--set",
        "data.cache=s/cache",
    ],
    &[
        "data",
        "prepare",
        "--config",
        "teacher.toml",
        "--set",
        "data.tokenizer={}",
        "--set",
        "data.cache=s/cache",
    ],
    &["influence", "--model", "teacher/model", "--data", "{}"],
    &[
        "eval", "--model", "llama", "--tasks", "text", "--data", "{}",
    ],
    &["train", "--config", "{}", "--run", "s/run"],
];

/// Files of a model that may be replaced by a pipe.
const MODEL_FILES: &[&str] = &[
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "iiet-manifest.json",
];

/// Commands that write the path `{}`.
const WRITING: &[&[&str]] = &[
    &[
        "logits",
        "--model",
        "teacher/model",
        "--ids",
        "1",
        "--out",
        "{}",
    ],
    &[
        "eval", "--model", "llama", "--tasks", "piqa", "--data", "eval", "--limit", "1", "--out",
        "{}",
    ],
    &[
        "influence",
        "--model",
        "teacher/model",
        "--data",
        "{corpus}",
        "--tokens",
        "64",
        "--out",
        "{}",
    ],
    &[
        "convert",
        "--model",
        "llama",
        "--solver",
        "explicit_euler",
        "--out",
        "{}",
    ],
    &[
        "train",
        "--config",
        "teacher.toml",
        "--set",
        "train.steps=1",
        "--run",
        "{}",
    ],
];

pub(super) fn run(world: &World) -> anyhow::Result<Streams> {
    let started = Instant::now();
    let mut done = Streams {
        outputs: outputs(world)?,
        inputs: inputs(world)?,
        places: places(world)?,
        seconds: 0.0,
    };
    done.seconds = started.elapsed().as_secs_f64();
    Ok(done)
}

fn command(world: &World, template: &[&str], path: &str) -> anyhow::Result<Command> {
    let corpus = world.corpus()?.display().to_string();
    let mut command = world.iiet(&[]);
    for word in template {
        command.arg(word.replace("{corpus}", &corpus).replace("{}", path));
    }
    Ok(command)
}

/// An empty directory `s`.
fn clear(world: &World) -> anyhow::Result<()> {
    let folder = world.path("s");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(folder).context("cannot make a folder")
}

fn closed() -> io::Result<Stdio> {
    let (reader, writer) = io::pipe()?;
    drop(reader);
    Ok(writer.into())
}

fn full() -> io::Result<Stdio> {
    Ok(OpenOptions::new().write(true).open("/dev/full")?.into())
}

fn outputs(world: &World) -> anyhow::Result<u64> {
    let mut count = 0;
    for (template, files) in PRINTING {
        for (what, stream) in [
            ("closed", closed as fn() -> io::Result<Stdio>),
            ("full", full),
        ] {
            for name in ["output", "error"] {
                clear(world)?;
                let mut command = command(world, template, "")?;
                let ended = match name {
                    "output" => {
                        command.stdout(stream()?);
                        watch(&mut command, &world.scratch, None)?
                    }
                    _ => {
                        command.stderr(stream()?);
                        watch_unheard(&mut command)?
                    }
                };
                let case = format!("{} with standard {name} {what}", as_typed(&command));
                if let Some(fault) = ended.fault(0) {
                    anyhow::bail!("{case}: {fault}\n{}", ended.errors);
                }
                // On a full disk the command may fail after its work.
                let must = name == "error" || what == "closed";
                ensure!(ended.success() || !must, "{case} fails: {}", ended.errors);
                for file in *files {
                    let written = fs::metadata(world.path(file)).is_ok_and(|found| found.len() > 0);
                    ensure!(written, "{case}: {file} is not written: {}", ended.errors);
                }
                count += 1;
            }
        }
    }
    Ok(count)
}

fn make_pipe(path: &Path) -> anyhow::Result<()> {
    let made = Command::new("mkfifo").arg(path).status();
    ensure!(made.is_ok_and(|status| status.success()), "mkfifo failed");
    Ok(())
}

/// Files that are not regular must be rejected at once, with a message.
fn inputs(world: &World) -> anyhow::Result<u64> {
    let mut count = 0;
    let mut refuse = |mut command: Command, case: String| -> anyhow::Result<()> {
        let ended = watch(&mut command, &world.scratch, None)?;
        let fault = ended.fault(0);
        ensure!(
            fault.is_none() && !ended.success(),
            "{case}: {} {}\n{}",
            as_typed(&command),
            fault.unwrap_or("is accepted".into()),
            ended.errors
        );
        count += 1;
        Ok(())
    };
    for template in READING {
        clear(world)?;
        let (pipe, link) = (world.path("s/pipe"), world.path("s/link"));
        make_pipe(&pipe)?;
        symlink("nowhere", &link)?;
        for path in [&pipe, &link, Path::new("/dev/zero"), Path::new("/dev/full")] {
            let path = path.display().to_string();
            refuse(command(world, template, &path)?, path)?;
        }
    }
    for file in MODEL_FILES {
        for what in ["pipe", "link"] {
            clear(world)?;
            let model = world.path("s/model");
            super::workload::copy(&world.path("bare"), &model)?;
            let path = model.join(file);
            if path.exists() {
                fs::remove_file(&path)?;
            }
            match what {
                "pipe" => make_pipe(&path)?,
                _ => symlink("nowhere", &path)?,
            }
            let words = [
                "generate",
                "--prompt",
                "a",
                "--max-tokens",
                "1",
                "--model",
                "s/model",
            ];
            refuse(world.iiet(&words), format!("{file} as a {what}"))?;
        }
    }
    Ok(count)
}

/// Existing files that are not regular must neither be replaced nor written to.
fn places(world: &World) -> anyhow::Result<u64> {
    let mut count = 0;
    for template in WRITING {
        clear(world)?;
        let pipe = world.path("s/pipe.json");
        make_pipe(&pipe)?;
        let mut writing = command(world, template, &pipe.display().to_string())?;
        let ended = watch(&mut writing, &world.scratch, None)?;
        let fault = ended.fault(0);
        ensure!(
            fault.is_none() && !ended.success(),
            "{}: {}\n{}",
            as_typed(&writing),
            fault.unwrap_or("a pipe is accepted as output".into()),
            ended.errors
        );
        ensure!(
            pipe.symlink_metadata()?.file_type().is_fifo(),
            "{}: replaces a pipe",
            as_typed(&writing)
        );
        // A link at the path of a partial file is not followed.
        let other = world.path("s/other");
        fs::write(&other, "mine")?;
        symlink(&other, world.path("s/.new.json.partial"))?;
        let to = world.path("s/new.json").display().to_string();
        let mut writing = command(world, template, &to)?;
        watch(&mut writing, &world.scratch, None)?;
        let mut text = String::new();
        io::Read::read_to_string(&mut File::open(&other)?, &mut text)?;
        ensure!(text == "mine", "{}: follows a link", as_typed(&writing));
        count += 2;
    }
    Ok(count)
}
