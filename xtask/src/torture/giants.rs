//! Small files that declare or expand to large sizes: memory is bounded by the file's size.

use std::fmt;
use std::fs;
use std::time::Instant;

use anyhow::bail;

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

/// `megabytes` is the decompressed size of the files.
pub(super) fn run(world: &World, megabytes: usize) -> anyhow::Result<Giants> {
    let started = Instant::now();
    let folder = world.path("giants");
    fs::create_dir_all(&folder)?;
    let line = format!("{{\"text\": \"{}\"}}\n", "a".repeat(megabytes << 20));
    fs::write(folder.join("line.jsonl.gz"), gzip(line.as_bytes())?)?;
    fs::write(folder.join("line.jsonl.zst"), zstd(line.as_bytes()))?;
    drop(line);
    let lines = "{\"text\": \"a b c\"}\n".repeat(megabytes << 13);
    fs::write(folder.join("lines.jsonl.gz"), gzip(lines.as_bytes())?)?;
    drop(lines);
    fs::write(folder.join("prompts.txt"), "a ".repeat(megabytes << 18))?;
    fs::write(folder.join("deep.json"), "[".repeat(megabytes << 16))?;
    let text: String = (0..megabytes * 200)
        .map(|i| format!("{i} and {i} make {}, say {i} of {}.\n", 2 * i, i % 97))
        .collect();
    fs::write(folder.join("ordinary.txt"), text)?;
    fs::write(folder.join("word.txt"), "a".repeat(megabytes << 18))?;
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
