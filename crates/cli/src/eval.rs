//! `iiet eval`

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use iiet_eval::{
    Comparison, Evaluated, ModelScorer, Outcome, Prepared, Provenance, Settings, TASKS, TokenBar,
    TokenScorer, compare, comparison_table, prepare, results, samples, table, task,
};
use iiet_model::{Precision, load_in, model_hash};
use iiet_text::TextTokenizer;
use serde_json::json;

use crate::backend::{Chosen, DeviceArgument};
use crate::precision::PrecisionArgument;
use crate::print::outln;

#[derive(clap::Args)]
#[command(after_help = tasks_help())]
pub(crate) struct Arguments {
    /// A model directory; give two to compare them item by item.
    #[arg(long, value_name = "DIR", required = true)]
    model: Vec<PathBuf>,
    /// Tasks, separated by commas.
    #[arg(long, value_name = "NAME,..", required = true, value_delimiter = ',')]
    tasks: Vec<String>,
    /// The folder with a folder of data for each task; for the task `text`, a file will do.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Take only the first N documents of each task.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Worked examples before each question, drawn as lm-evaluation-harness draws them.
    #[arg(long, value_name = "N", default_value_t = 0)]
    num_fewshot: u32,
    /// Write the results as JSON.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write a record of each item to samples_TASK.jsonl beside --out.
    #[arg(long, requires = "out")]
    log_samples: bool,
    /// Where the items of the heldout tasks are kept.
    #[arg(long, value_name = "DIR", default_value = "data")]
    cache: PathBuf,
    #[command(flatten)]
    precision: PrecisionArgument,
    #[command(flatten)]
    device: DeviceArgument,
}

fn tasks_help() -> String {
    let names: Vec<&str> = TASKS.iter().map(|task| task.name).collect();
    format!("Tasks: {}", names.join(", "))
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.model.len() > 2 {
        bail!(
            "--model is given {} times; allowed: once, or twice to compare",
            arguments.model.len()
        );
    }
    for (number, name) in arguments.tasks.iter().enumerate() {
        if arguments.tasks[..number].contains(name) {
            bail!("--tasks names {name} twice");
        }
    }
    let settings = Settings {
        data: arguments.data.clone(),
        limit: arguments.limit.map(|limit| limit as usize),
        num_fewshot: arguments.num_fewshot as usize,
        workspace: PathBuf::from("."),
        cache: arguments.cache.clone(),
    };
    if let Some(data) = arguments.data.as_ref().filter(|data| !data.exists()) {
        bail!("--data {}: there is no such folder or file", data.display());
    }
    if let Some(folder) = arguments.out.as_deref().and_then(Path::parent) {
        // Found out before the work, not after it.
        std::fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
    }
    let prepared: Vec<Prepared> = arguments
        .tasks
        .iter()
        .map(|name| Ok(prepare(task(name)?, &settings)?))
        .collect::<anyhow::Result<_>>()?;
    let chosen = arguments.device.open()?;
    let precision = arguments.precision.on(&chosen)?;
    let mut evaluated = Vec::new();
    let mut described = Vec::new();
    for model in &arguments.model {
        evaluated.push(evaluate(model, &prepared, precision, &chosen)?);
        described.push(provenance(model, arguments, precision)?);
    }
    let outcomes =
        |number: usize| -> Vec<Outcome<'_>> { prepared.iter().zip(&evaluated[number]).collect() };
    let differences = match &evaluated[..] {
        [first, second] => Some(differences(&prepared, first, second)?),
        _ => None,
    };
    // Files first: whatever becomes of the printing, the results are there.
    if let Some(out) = &arguments.out {
        let json = |number: usize| results(&outcomes(number), &described[number]);
        let json = match &differences {
            Some(differences) => json!({
                "a": json(0),
                "b": json(1),
                "differences": differences.iter().map(Comparison::to_json).collect::<Vec<_>>(),
            }),
            None => json(0),
        };
        std::fs::write(out, format!("{json:#}\n")).with_context(|| format!("{}", out.display()))?;
        if arguments.log_samples {
            let suffixes: &[&str] = match differences {
                Some(_) => &["_a", "_b"],
                None => &[""],
            };
            for (number, suffix) in suffixes.iter().enumerate() {
                write_samples(out, suffix, &outcomes(number))?;
            }
        }
    }
    for (number, model) in arguments.model.iter().enumerate() {
        outln!("{}\n{}", model.display(), table(&outcomes(number)))?;
    }
    match differences {
        Some(differences) => outln!("{}", comparison_table(&differences)),
        None => Ok(()),
    }
}

/// Runs all tasks on one model.
fn evaluate(
    model: &Path,
    prepared: &[Prepared],
    precision: Precision,
    chosen: &Chosen,
) -> anyhow::Result<Vec<Evaluated>> {
    let device = &chosen.device;
    let config = iiet_model::load_config(model)?;
    if chosen.on_host {
        let work = format!("evaluating {}", model.display());
        let estimate = ModelScorer::memory(work, precision, &config, device)?;
        estimate.check("use --precision bf16, or a model with a shorter context")?;
    }
    let tokenizer = TextTokenizer::open(model, config.vocab_size)?;
    let (language_model, _) = load_in(precision, model, device)?;
    let scorer = TokenScorer::new(ModelScorer::new(language_model, device.clone()), tokenizer);
    prepared
        .iter()
        .map(|prepared| {
            let bar = TokenBar::new(prepared.task.name);
            let evaluated = prepared.evaluate(&scorer, &bar);
            evaluated.with_context(|| prepared.task.name.to_owned())
        })
        .collect()
}

/// How the second model differs, metric by metric.
fn differences(
    prepared: &[Prepared],
    first: &[Evaluated],
    second: &[Evaluated],
) -> anyhow::Result<Vec<Comparison>> {
    let mut comparisons = Vec::new();
    for (prepared, (a, b)) in prepared.iter().zip(first.iter().zip(second)) {
        comparisons.extend(compare(prepared.task.name, a, b)?);
    }
    Ok(comparisons)
}

fn write_samples(out: &Path, suffix: &str, outcomes: &[Outcome<'_>]) -> anyhow::Result<()> {
    for outcome in outcomes {
        let path = out.with_file_name(format!("samples_{}{suffix}.jsonl", outcome.0.task.name));
        File::create(&path)
            .map(BufWriter::new)
            .and_then(|mut file| {
                samples::write(&mut file, *outcome)?;
                file.flush()
            })
            .with_context(|| format!("{}", path.display()))?;
    }
    Ok(())
}

fn provenance(
    model: &Path,
    arguments: &Arguments,
    precision: Precision,
) -> anyhow::Result<Provenance> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(Provenance {
        model: model.display().to_string(),
        model_hash: model_hash(model)?,
        precision: precision.to_string(),
        git_revision: git_revision(),
        limit: arguments.limit.map(|limit| limit as usize),
        date: since.map_or(0.0, |since| since.as_secs_f64()),
    })
}

/// The commit checked out around the working directory.
fn git_revision() -> Option<String> {
    let output = Command::new("git")
        .args(["rev-parse", "HEAD"])
        .output()
        .ok()?;
    let commit = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| commit.trim().to_owned())
}
