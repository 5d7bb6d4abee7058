//! `iiet eval`

mod on_ranks;
mod sequence;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use iiet_eval::{
    Comparison, EvalError, Evaluated, ModelScorer, Outcome, Prepared, Progress, Provenance,
    Settings, Split, TASKS, TokenScorer, asked_generated, compare, comparison_table, prepare,
    results, samples, table, task,
};
use iiet_files::write_file;
use iiet_model::{ModelKind, Precision, load_in, model_hash, model_kind};
use iiet_text::TextTokenizer;
use iiet_train::Ranks;
use serde_json::{Value, json};

use self::on_ranks::OnRanks;
use crate::backend::{Chosen, DeviceArgument};
use crate::beam::TargetArguments;
use crate::corrections::{self, CorrectionArguments};
use crate::held_out::HeldOutArguments;
use crate::output;
use crate::precision::PrecisionArgument;
use crate::print::{errln, outln};
use crate::progress::TokenBar;
use crate::ranks::RanksArgument;

#[derive(clap::Args)]
#[command(after_help = tasks_help())]
pub(crate) struct Arguments {
    /// A model directory, that of a run, a name on the Hugging Face hub, or a GGUF file; give two to compare them item
    /// by item.
    #[arg(long, value_name = "DIR", required = true)]
    pub(crate) model: Vec<PathBuf>,
    /// The same as results name them.
    #[arg(skip)]
    pub(crate) origins: Vec<PathBuf>,
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
    /// Override an option of a generated task, as in group.group=A5; repeatable. By default they are those
    /// that the models were trained on.
    #[arg(long, value_name = "TASK.KEY=VALUE")]
    set: Vec<String>,
    /// The difficulties of the generated tasks, such as lengths or hops [default: some up to twice the
    /// greatest that was trained].
    #[arg(long, value_name = "N,..", value_delimiter = ',')]
    difficulties: Option<Vec<usize>>,
    /// Write the results as JSON.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write a record of each item to samples_TASK_DATE.jsonl beside --out, as lm-evaluation-harness does;
    /// of two models in the folders a and b.
    #[arg(long, requires = "out")]
    log_samples: bool,
    /// The split to evaluate [default: test, else validation].
    #[arg(long, value_name = "SPLIT")]
    split: Option<Split>,
    #[command(flatten)]
    targets: TargetArguments,
    #[command(flatten)]
    held_out: HeldOutArguments,
    #[command(flatten)]
    corrections: CorrectionArguments,
    #[command(flatten)]
    precision: PrecisionArgument,
    #[command(flatten)]
    device: DeviceArgument,
    #[command(flatten)]
    ranks: RanksArgument,
}

fn tasks_help() -> String {
    let names: Vec<&str> = TASKS.iter().map(|task| task.name).collect();
    format!("Tasks: {}", names.join(", "))
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    arguments.ranks.together(|ranks| on_rank(arguments, ranks))
}

fn on_rank(arguments: &Arguments, ranks: &Ranks) -> anyhow::Result<()> {
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
        generated: asked_generated(
            &arguments.tasks,
            &arguments.model,
            &arguments.set,
            arguments.difficulties.as_deref(),
        )?,
        split: arguments.split,
        search: arguments.targets.for_tasks(&arguments.tasks)?,
        ..arguments.held_out.settings()
    };
    if let Some(data) = arguments.data.as_ref().filter(|data| !data.exists()) {
        bail!("--data {}: there is no such folder or file", data.display());
    }
    if let Some(out) = arguments.out.as_ref().filter(|_| ranks.is_first()) {
        output::prepare(out)?;
    }
    let prepared = prepared(arguments, &settings, ranks)?;
    if ranks.is_first() {
        prepared.iter().for_each(|prepared| errln!("{prepared}"));
    }
    let chosen = arguments.device.open()?;
    let precision = arguments.precision.on(&chosen)?;
    let mut done = Done::new(arguments, &prepared, ranks.is_first());
    // A second model that cannot be read is found out before the first has been asked.
    let models = arguments.model.iter();
    let models: Vec<Inspected> = models
        .map(|model| match model_kind(model)? {
            ModelKind::EncoderDecoder => {
                sequence::inspect(model, arguments, &prepared, precision, &chosen)
            }
            _ => inspect(model, arguments, &prepared, precision, &chosen),
        })
        .collect::<anyhow::Result<_>>()?;
    for (
        (path, origin),
        Inspected {
            provenance,
            tokenizer,
        },
    ) in arguments.model.iter().zip(&arguments.origins).zip(models)
    {
        done.begin(Provenance {
            model: origin.display().to_string(),
            ..provenance
        });
        let Some(tokenizer) = tokenizer else {
            let model = sequence::open(path, precision, &chosen)?;
            let decoder = OnRanks { model, ranks };
            for prepared in &prepared {
                let bar = progress(prepared, ranks);
                done.add(prepared.decode(&decoder, &*bar))?;
            }
            continue;
        };
        let (model, _) = load_in(precision, path, &chosen.device)?;
        let model = arguments.corrections.apply(model)?;
        let model = TokenScorer::new(ModelScorer::new(model, chosen.device.clone()), tokenizer);
        let scorer = OnRanks { model, ranks };
        for prepared in &prepared {
            let bar = progress(prepared, ranks);
            done.add(prepared.evaluate(&scorer, &*bar))?;
        }
        if ranks.is_first() {
            corrections::report(scorer.model.model().corrections());
        }
    }
    done.print()
}

/// The items of the tasks. The first rank fetches what is not on disk, and the others then find it.
fn prepared(
    arguments: &Arguments,
    settings: &Settings,
    ranks: &Ranks,
) -> anyhow::Result<Vec<Prepared>> {
    let names = arguments.tasks.iter();
    let all = || -> anyhow::Result<Vec<Prepared>> {
        names
            .map(|name| Ok(prepare(task(name)?, settings)?))
            .collect()
    };
    match ranks.is_first() {
        true => ranks.all_succeeded(all()),
        false => {
            ranks.all_succeeded(anyhow::Ok(()))?;
            all()
        }
    }
}

/// The progress of a task, which the first rank shows.
fn progress(prepared: &Prepared, ranks: &Ranks) -> Box<dyn Progress> {
    match ranks.is_first() {
        true => Box::new(TokenBar::new(prepared.task.name)),
        false => Box::new(()),
    }
}

/// What is known of a model from its small files.
struct Inspected {
    provenance: Provenance,
    /// That of a language model.
    tokenizer: Option<TextTokenizer>,
}

/// Looks at a language model.
fn inspect(
    model: &Path,
    arguments: &Arguments,
    prepared: &[Prepared],
    precision: Precision,
    chosen: &Chosen,
) -> anyhow::Result<Inspected> {
    if let Some(prepared) = prepared.iter().find(|prepared| prepared.search.is_some()) {
        let task = prepared.task.name;
        return Err(EvalError::NeedsDecoder { task }).context(model.display().to_string());
    }
    let config = iiet_model::load_config(model)?;
    let config = arguments.corrections.configure(config)?;
    if chosen.on_host {
        let work = format!("evaluating {}", model.display());
        let estimate = ModelScorer::memory(work, precision, &config, &chosen.device)?;
        let estimate = estimate.stored_in(model)?;
        estimate.check("use --precision bf16, or a model with a shorter context")?;
    }
    let tokenizer = TextTokenizer::open(model, config.vocab_size)?;
    let rule = tokenizer.rule().to_owned();
    Ok(Inspected {
        provenance: provenance(model, arguments, precision, rule)?,
        tokenizer: Some(tokenizer),
    })
}

/// What there is so far. The files are written after each task, so an end of the process costs the
/// task at hand.
struct Done<'a> {
    /// Whether this process writes them.
    writes: bool,
    arguments: &'a Arguments,
    prepared: &'a [Prepared],
    models: Vec<ModelDone>,
}

/// The answers of one model: a task that could not be asked has an error in its place.
struct ModelDone {
    provenance: Provenance,
    tasks: Vec<Result<Evaluated, EvalError>>,
}

impl<'a> Done<'a> {
    fn new(arguments: &'a Arguments, prepared: &'a [Prepared], writes: bool) -> Self {
        Self {
            writes,
            arguments,
            prepared,
            models: Vec::new(),
        }
    }

    fn begin(&mut self, provenance: Provenance) {
        let tasks = Vec::new();
        self.models.push(ModelDone { provenance, tasks });
    }

    /// Takes up a task of the last model, and writes the files.
    fn add(&mut self, task: Result<Evaluated, EvalError>) -> anyhow::Result<()> {
        let at = self.models.len() - 1;
        let date = self.models[at].provenance.date;
        let tasks = &mut self.models[at].tasks;
        tasks.push(task);
        if !self.writes {
            return Ok(());
        }
        let last = (&self.prepared[tasks.len() - 1], &tasks[tasks.len() - 1]);
        match last {
            (prepared, Err(error)) => errln!("{}: {error}", prepared.task.name),
            (prepared, Ok(evaluated)) => {
                if let Some(first) = evaluated.left_out.first() {
                    errln!(
                        "{}: {} of {} items are left out, because the model cannot answer them; item {}: {}",
                        prepared.task.name,
                        evaluated.left_out.len(),
                        prepared.items.len(),
                        first.item,
                        first.reason
                    );
                }
            }
        }
        let Some(out) = &self.arguments.out else {
            return Ok(());
        };
        if let (true, (prepared, Ok(evaluated))) = (self.arguments.log_samples, last) {
            let folder = match self.arguments.model.len() {
                1 => None,
                _ => Some(["a", "b"][at]),
            };
            write_samples(out, folder, date, (prepared, evaluated))?;
        }
        write_file(out, |file| writeln!(file, "{:#}", self.json()))
            .with_context(|| out.display().to_string())?;
        Ok(())
    }

    fn outcomes(&self, model: &'a ModelDone) -> Vec<Outcome<'a>> {
        let tasks = self.prepared.iter().zip(&model.tasks);
        tasks
            .filter_map(|(prepared, task)| Some((prepared, task.as_ref().ok()?)))
            .collect()
    }

    fn json(&self) -> Value {
        let of = |model: &ModelDone| {
            let mut json = results(&self.outcomes(model), &model.provenance);
            let tasks = self.prepared.iter().zip(&model.tasks);
            let failed = tasks.filter_map(|(prepared, task)| {
                let error = task.as_ref().err()?;
                Some((prepared.task.name.to_owned(), error.to_string().into()))
            });
            json["failed"] = Value::Object(failed.collect());
            let open = &self.prepared[model.tasks.len()..];
            let open = open.iter().map(|prepared| prepared.task.name);
            json["not_yet_evaluated"] = open.collect();
            json
        };
        match (&self.models[..], self.arguments.model.len()) {
            ([model], 1) => of(model),
            ([a], _) => json!({ "a": of(a), "b": null, "differences": [] }),
            ([a, b, ..], _) => {
                let differences = match self.differences(a, b) {
                    Ok(differences) => differences.iter().map(Comparison::to_json).collect(),
                    Err(error) => Value::from(error.to_string()),
                };
                json!({ "a": of(a), "b": of(b), "differences": differences })
            }
            ([], _) => Value::Null,
        }
    }

    /// How the second model differs, for the tasks that both have.
    fn differences(&self, a: &ModelDone, b: &ModelDone) -> Result<Vec<Comparison>, EvalError> {
        let mut comparisons = Vec::new();
        for (prepared, (a, b)) in self.prepared.iter().zip(a.tasks.iter().zip(&b.tasks)) {
            if let (Ok(a), Ok(b)) = (a, b) {
                comparisons.extend(compare(prepared.task.name, a, b)?);
            }
        }
        Ok(comparisons)
    }

    /// Prints the tables; an error if a task could not be asked.
    fn print(&self) -> anyhow::Result<()> {
        if !self.writes {
            return Ok(());
        }
        for model in &self.models {
            let table = table(&self.outcomes(model));
            let Provenance {
                model, tokenizer, ..
            } = &model.provenance;
            outln!("{model}: {tokenizer}\n{table}")?;
        }
        for model in &self.models {
            sequence::print_scores(&model.provenance.model, &self.outcomes(model))?;
        }
        if let [a, b] = &self.models[..] {
            outln!("{}", comparison_table(&self.differences(a, b)?))?;
        }
        let tasks = self.models.iter().flat_map(|model| &model.tasks);
        let failed = tasks.filter(|task| task.is_err()).count();
        ensure!(
            failed == 0,
            "{failed} of {} evaluations failed; the messages are above{}",
            self.models.len() * self.prepared.len(),
            match self.arguments.out {
                Some(_) => " and in --out",
                None => "",
            }
        );
        Ok(())
    }
}

fn write_samples(
    out: &Path,
    folder: Option<&str>,
    date: f64,
    outcome: Outcome<'_>,
) -> anyhow::Result<()> {
    let name = samples::file_name(outcome.0.task.name, date);
    let path = match folder {
        None => out.with_file_name(name),
        Some(folder) => out.with_file_name(folder).join(name),
    };
    output::prepare(&path)?;
    write_file(&path, |file| samples::write(file, outcome))
        .with_context(|| path.display().to_string())?;
    Ok(())
}

fn provenance(
    model: &Path,
    arguments: &Arguments,
    precision: Precision,
    tokenizer: String,
) -> anyhow::Result<Provenance> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(Provenance {
        model: model.display().to_string(),
        model_hash: model_hash(model)?,
        precision: precision.to_string(),
        corrections: arguments.corrections.describe(),
        git_revision: git_revision(),
        limit: arguments.limit.map(|limit| limit as usize),
        date: since.map_or(0.0, |since| since.as_secs_f64()),
        tokenizer,
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
