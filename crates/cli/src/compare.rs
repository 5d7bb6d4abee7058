//! `iiet compare`

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use iiet_data::TaskSpec;
use iiet_eval::report::{ReportSettings, kind_of, report, report_tasks, save, table};
use iiet_eval::{Settings, Source, Split, TASKS, asked_generated};
use iiet_model::ModelKind;
use iiet_plots::draw_quality;

use crate::backend::DeviceArgument;
use crate::beam::TargetArguments;
use crate::held_out::HeldOutArguments;
use crate::output;
use crate::print::out;
use crate::progress::report_progress;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Model directories, those of runs, names on the Hugging Face hub, or GGUF files, each after a --model of its own, of
    /// language models or of sequence-to-sequence models. The first is the reference: shares, differences and retention
    /// are of it.
    #[arg(long, value_name = "DIR", required = true)]
    pub(crate) model: Vec<PathBuf>,
    /// The same as the report names them.
    #[arg(skip)]
    pub(crate) origins: Vec<PathBuf>,
    /// Tasks, separated by commas; `iiet eval --help` has a list [default: the heldout tasks, or the task
    /// that the reference was trained on; for sequence-to-sequence models translation and summarisation, if
    /// --data has a folder of that name, else heldout_docs].
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    tasks: Option<Vec<String>>,
    /// The folder with a folder of data for each task; for the task `text`, a file will do.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Take only the first N documents of each task.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Write the report as JSON; the chart of quality against cost is drawn beside it, with the
    /// ending .svg.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The split to evaluate [default: test, else validation].
    #[arg(long, value_name = "SPLIT")]
    split: Option<Split>,
    #[command(flatten)]
    targets: TargetArguments,
    #[command(flatten)]
    held_out: HeldOutArguments,
    #[command(flatten)]
    device: DeviceArgument,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(data) = arguments.data.as_ref().filter(|data| !data.exists()) {
        bail!("--data {}: there is no such folder or file", data.display());
    }
    if let Some(out) = &arguments.out {
        // Found out before the work, not after it.
        if out.is_dir() || out.extension().is_some_and(|ending| ending == "svg") {
            bail!(
                "--out {}: allowed is a file for JSON, such as report.json",
                out.display()
            );
        }
        output::prepare(out)?;
        output::prepare(&out.with_extension("svg"))?;
    }
    let tasks = tasks(arguments)?;
    let generated = asked_generated(&tasks, &arguments.model, &[], None)?;
    let backend = arguments.device.open()?;
    let search = arguments.targets.for_tasks(&tasks)?;
    let settings = ReportSettings {
        tasks,
        evaluation: Settings {
            data: arguments.data.clone(),
            limit: arguments.limit.map(|limit| limit as usize),
            generated,
            split: arguments.split,
            search,
            ..arguments.held_out.settings()
        },
        host_memory: backend.on_host,
    };
    let mut report = report(
        &arguments.model,
        &settings,
        &backend.device,
        &report_progress,
    )?;
    for (model, origin) in report.models.iter_mut().zip(&arguments.origins) {
        model.path.clone_from(origin);
    }
    let mut text = table(&report);
    if let Some(out) = &arguments.out {
        save(&report, out)?;
        let svg = out.with_extension("svg");
        draw_quality(&svg, &report)?;
        text += &format!("{}, {}\n", out.display(), svg.display());
    }
    out!("{text}")
}

/// The tasks asked for, or those that suit the models.
fn tasks(arguments: &Arguments) -> anyhow::Result<Vec<String>> {
    // Before any data is made.
    let kind = kind_of(&arguments.model)?;
    if let Some(tasks) = &arguments.tasks {
        return Ok(tasks.clone());
    }
    let names = match (kind, &arguments.data) {
        (ModelKind::EncoderDecoder, Some(data)) => tasks_in(data)?,
        (ModelKind::EncoderDecoder, None) => report_tasks(kind).to_vec(),
        _ => match TaskSpec::read(&arguments.model[0])? {
            Some(trained) => vec![trained.name()],
            None => report_tasks(kind).to_vec(),
        },
    };
    Ok(names.into_iter().map(str::to_owned).collect())
}

/// The tasks of sources and targets that a folder of data has a folder for.
fn tasks_in(data: &Path) -> anyhow::Result<Vec<&'static str>> {
    let of_pairs = TASKS
        .iter()
        .filter(|task| matches!(task.source, Source::Pairs));
    let names = of_pairs.map(|task| task.name);
    let names: Vec<&str> = names.filter(|name| data.join(name).is_dir()).collect();
    ensure!(
        !names.is_empty(),
        "--data {}: allowed is a folder with translation or summarisation in it",
        data.display()
    );
    Ok(names)
}
