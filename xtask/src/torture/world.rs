//! The files under test: one of each kind that `iiet` reads, and models and runs based on them.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use super::child::{Ended, watch};
use super::workload::copy;

/// A directory with
///
/// - `text.txt`, `rows.jsonl`, `rows.jsonl.gz`, `rows.jsonl.zst`, `rows.csv`, `rows.json`,
///   `rows.parquet`: sources of text, `prompts.txt` and `prompts.jsonl`
/// - `teacher.toml`, `student.toml`: configurations; `cache`: their prepared corpora
/// - `teacher`: a run of 12 steps with three checkpoints, and its `model`, which has a manifest
/// - `bare`: the same model without a manifest, as from other tools; `llama`: a LLaMA in two shards
///   and `sentence-piece`: one with the other kind of tokenizer
/// - `sweep`: a sweep of two trials
/// - `eval`: data of evaluation tasks
pub(super) struct World {
    iiet: PathBuf,
    folder: PathBuf,
    /// For logs and cases.
    pub(super) scratch: PathBuf,
}

const MODEL: &str = "[model]\nd_model = 16\nd_ff = 32\nn_layers = 3\nn_heads = 2\nseq_len = 16\n\
     solver = { name = 'iterative_implicit_euler', iterations = 2 }\ninitializer_range = 0.2\n";
const TRAIN: &str = "[train]\nbatch = 4\nlr = 1e-2\nlog_every = 1\neval_every = 4\n\
     checkpoint_every = 4\nkeep = 3\neval_tokens = 256\nsample_every = 0\n";

impl World {
    pub(super) fn prepare(workspace: &Path, iiet: &Path, place: &Path) -> anyhow::Result<Self> {
        let folder = place.join("world");
        let scratch = place.join("scratch");
        fs::create_dir_all(&folder)?;
        fs::create_dir_all(&scratch)?;
        let world = Self {
            iiet: iiet.to_owned(),
            folder,
            scratch,
        };
        world.write_sources(workspace)?;
        let data = format!(
            "[data]\nsource = '{}'\ncache = '{}'\nvocab_size = 300\nvalidation = 0.1\n",
            world.path("text.txt").display(),
            world.path("cache").display()
        );
        let write = |name: &str, text: String| fs::write(world.path(name), text);
        write("teacher.toml", format!("{MODEL}{data}{TRAIN}steps = 12\n"))?;
        write("student.toml", format!("{data}{TRAIN}steps = 8\n"))?;
        let config = world.path("teacher.toml");
        let run = world.path("teacher");
        let mut train = world.iiet(&["train", "--config"]);
        train.arg(config).arg("--run").arg(&run);
        world.must(&mut train)?;
        let mut sweep = world.iiet(&["sweep", "--config", "teacher.toml", "--budget", "4"]);
        sweep.args(["--grid", "train.lr=1e-2,2e-2", "--out", "sweep"]);
        world.must(&mut sweep)?;
        copy(&run.join("model"), &world.path("bare"))?;
        fs::remove_file(world.path("bare").join("iiet-manifest.json"))?;
        Ok(world)
    }

    fn write_sources(&self, workspace: &Path) -> anyhow::Result<()> {
        let sentences: Vec<String> = (0..400)
            .map(|i| format!("{i} and {i} make {}. Naïve, 日本.", 2 * i))
            .collect();
        let text: String = sentences.iter().map(|line| format!("{line}\n")).collect();
        let rows: String = sentences
            .iter()
            .map(|line| format!("{{\"id\": 1, \"text\": \"{line} \\\"x\\\" \\u00e9\"}}\n"))
            .collect();
        let array = format!("[{}]", rows.trim().replace('\n', ","));
        let table: String = sentences
            .iter()
            .map(|line| format!("1,\"{line} \"\"x\"\"\"\n"))
            .collect();
        fs::write(self.path("text.txt"), &text)?;
        fs::write(self.path("rows.jsonl"), &rows)?;
        fs::write(self.path("rows.json"), array)?;
        fs::write(self.path("rows.csv"), format!("id,text\n{table}"))?;
        fs::write(self.path("rows.jsonl.gz"), gzip(rows.as_bytes())?)?;
        fs::write(self.path("rows.jsonl.zst"), zstd(rows.as_bytes()))?;
        fs::write(
            self.path("prompts.txt"),
            "one\n\ntwo 日本\n12 and 12 make\n",
        )?;
        fs::write(
            self.path("prompts.jsonl"),
            "\"one\"\n{\"prompt\": \"two\"}\n",
        )?;
        let eval = workspace.join("crates/eval/tests");
        fs::copy(eval.join("formats/rows.parquet"), self.path("rows.parquet"))?;
        for task in ["arc_easy", "piqa", "lambada_openai", "wikitext"] {
            let to = self.path("eval").join(task);
            copy(&eval.join("harness/data").join(task), &to)?;
        }
        // The same rows as tables, which arc_challenge reads.
        for (format, ending) in [("parquet", "parquet"), ("file.arrow", "arrow")] {
            let to = self.path(&format!("eval-{ending}")).join("arc_challenge");
            fs::create_dir_all(&to)?;
            let from = eval.join(format!("formats/rows.{format}"));
            fs::copy(from, to.join(format!("test.{ending}")))?;
        }
        let llama = workspace.join("crates/cli/tests/llama/byte-level");
        copy(&llama, &self.path("llama"))?;
        fs::remove_file(self.path("llama/expected.json")).context("an unused file")?;
        let sentence_piece = workspace.join("crates/cli/tests/llama/sentence-piece");
        copy(&sentence_piece, &self.path("sentence-piece"))
    }

    /// The path of a file or directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// `iiet` with arguments, in this directory, without standard input and output.
    pub(super) fn iiet(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.iiet);
        command
            .args(arguments)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .env("RAYON_NUM_THREADS", "2");
        command
    }

    /// Runs a command that must succeed.
    pub(super) fn must(&self, command: &mut Command) -> anyhow::Result<Ended> {
        let ended = watch(command, &self.scratch, None)?;
        ensure!(
            ended.success() && ended.fault(0).is_none(),
            "{command:?} failed:\n{}",
            ended.errors
        );
        Ok(ended)
    }

    /// The directory of the prepared corpus of `teacher.toml`.
    pub(super) fn corpus(&self) -> anyhow::Result<PathBuf> {
        let entries = fs::read_dir(self.path("cache"))?;
        let mut folders = entries.flatten().map(|entry| entry.path());
        folders
            .find(|path| path.join("train.tokens").is_file())
            .context("the corpus of teacher.toml")
    }
}

pub(super) fn gzip(mut source: impl Read) -> anyhow::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::copy(&mut source, &mut encoder)?;
    Ok(encoder.finish()?)
}

pub(super) fn zstd(source: impl Read) -> Vec<u8> {
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    ruzstd::encoding::compress_to_vec(source, level)
}

/// The size of a file, or of all files in a directory.
pub(super) fn size(path: &Path) -> u64 {
    let Ok(found) = path.symlink_metadata() else {
        return 0;
    };
    if !found.is_dir() {
        return found.len();
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| size(&entry.path())).sum()
}

/// Whether a directory contains unfinished files, whose names begin with a dot.
pub(super) fn is_hidden(path: &Path, below: &Path) -> bool {
    let relative = path.strip_prefix(below).unwrap_or(path);
    let mut names = relative.iter().map(|name| name.to_string_lossy());
    names.any(|name| name.starts_with('.'))
}
