//! Small files that declare or expand to large sizes: memory is bounded by the file's size.

use std::fmt;
use std::fs;
use std::io::{self, BufWriter, Read, Write};
use std::time::Instant;

use anyhow::{Context, bail};

use super::child::{as_typed, watch};
use super::world::{World, gzip, size, zstd};

pub(super) struct Giants {
    cases: u64,
    seconds: f64,
}

impl fmt::Display for Giants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "giants            {} small inputs that demand large resources: at most 4 times the input and 300 MB; {:.0} s",
            self.cases, self.seconds
        )
    }
}

/// A text repeated up to a number of bytes. It is never in memory as a whole: the kernel counts the memory of this
/// process, at the moment that it starts a command, as the command's.
struct Repeated {
    text: &'static [u8],
    at: usize,
    left: usize,
}

impl Repeated {
    fn new(text: &'static [u8], bytes: usize) -> Self {
        let left = bytes / text.len() * text.len();
        Self { text, at: 0, left }
    }
}

impl Read for Repeated {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = buffer.len().min(self.left);
        for byte in &mut buffer[..read] {
            *byte = self.text[self.at];
            self.at = (self.at + 1) % self.text.len();
        }
        self.left -= read;
        Ok(read)
    }
}

/// `megabytes` is the decompressed size of the files.
pub(super) fn run(world: &World, megabytes: usize) -> anyhow::Result<Giants> {
    let started = Instant::now();
    let folder = world.path("giants");
    fs::create_dir_all(&folder)?;
    let bytes = megabytes << 20;
    let line = || {
        let text = io::repeat(b'a').take(bytes as u64);
        b"{\"text\": \"".chain(text).chain(&b"\"}\n"[..])
    };
    fs::write(folder.join("line.jsonl.gz"), gzip(line())?)?;
    fs::write(folder.join("line.jsonl.zst"), zstd(line()))?;
    let lines = Repeated::new(b"{\"text\": \"a b c\"}\n", bytes);
    fs::write(folder.join("lines.jsonl.gz"), gzip(lines)?)?;
    let write = |name: &str, mut content: Repeated| {
        io::copy(&mut content, &mut fs::File::create(folder.join(name))?)
    };
    write("prompts.txt", Repeated::new(b"a ", bytes / 2))?;
    write("deep.json", Repeated::new(b"[", bytes / 16))?;
    write("word.txt", Repeated::new(b"a", bytes / 4))?;
    let mut ordinary = BufWriter::new(fs::File::create(folder.join("ordinary.txt"))?);
    for i in 0..megabytes * 100 {
        writeln!(
            ordinary,
            "{i} and {i} make {}, say {i} of {}.",
            2 * i,
            i % 97
        )?;
    }
    drop(ordinary.into_inner().context("cannot write a text")?);
    for (name, layers, iterations) in [("layers", "16384", "1"), ("corrections", "3", "4096")] {
        let bare = fs::read_to_string(world.path("bare/config.json"))?;
        let mut config: serde_json::Value = serde_json::from_str(&bare)?;
        config["num_hidden_layers"] = serde_json::from_str(layers)?;
        config["iterations"] = serde_json::from_str(iterations)?;
        config["max_position_embeddings"] = 1_048_576.into();
        let to = folder.join(name);
        super::workload::copy(&world.path("bare"), &to)?;
        fs::write(to.join("config.json"), config.to_string())?;
    }
    let prepare = |file: &str| {
        let source = format!("data.source=giants/{file}");
        let words = [
            "data",
            "prepare",
            "--config",
            "teacher.toml",
            "--set",
            &source,
            "--set",
        ];
        let words = words.iter().map(|word| (*word).to_owned());
        let cache = "data.cache=giants/cache".to_owned();
        words.chain([cache]).collect::<Vec<_>>()
    };
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let eval = |model: &str, file: &str| {
        let data = format!("giants/{file}");
        words(&[
            "eval", "--model", model, "--tasks", "text", "--data", &data, "--limit", "1",
        ])
    };
    let commands = [
        ("line.jsonl.gz", prepare("line.jsonl.gz")),
        ("line.jsonl.zst", prepare("line.jsonl.zst")),
        ("lines.jsonl.gz", prepare("lines.jsonl.gz")),
        ("deep.json", prepare("deep.json")),
        (
            "prompts.txt",
            words(&[
                "generate",
                "--model",
                "teacher/model",
                "--max-tokens",
                "1",
                "--batch",
                "giants/prompts.txt",
            ]),
        ),
        ("word.txt", prepare("word.txt")),
        ("word.txt", eval("teacher/model", "word.txt")),
        ("ordinary.txt", eval("teacher/model", "ordinary.txt")),
        ("ordinary.txt", eval("sentence-piece", "ordinary.txt")),
        ("layers", words(&["info", "--model", "giants/layers"])),
        (
            "layers",
            words(&[
                "logits",
                "--model",
                "giants/layers",
                "--ids",
                "1",
                "--out",
                "giants/l",
            ]),
        ),
        (
            "corrections",
            words(&["info", "--model", "giants/corrections"]),
        ),
        (
            "corrections",
            words(&[
                "generate",
                "--model",
                "giants/corrections",
                "--prompt",
                "a",
                "--max-tokens",
                "1000000",
            ]),
        ),
    ];
    let mut faults = Vec::new();
    for (file, arguments) in &commands {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = world.iiet(&arguments);
        let ended = watch(&mut command, &world.scratch, None)?;
        if let Some(fault) = ended.fault_but_for_time(size(&folder.join(file))) {
            eprintln!("{fault}\n  {}\n  {}\n", as_typed(&command), ended.message());
            faults.push(fault);
        }
    }
    if !faults.is_empty() {
        bail!(
            "{} of {} giants: {}",
            faults.len(),
            commands.len(),
            faults.join("; ")
        );
    }
    let (cases, seconds) = (commands.len() as u64, started.elapsed().as_secs_f64());
    Ok(Giants { cases, seconds })
}
