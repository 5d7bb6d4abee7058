//! `iiet compare`

use std::path::PathBuf;

use anyhow::bail;
use iiet_data::TaskSpec;
use iiet_eval::report::{REPORT_TASKS, ReportSettings, report, save, table};
use iiet_eval::{Settings, Split, asked_generated};
use iiet_plots::draw_quality;

use crate::backend::DeviceArgument;
use crate::held_out::HeldOutArguments;
use crate::output;
use crate::print::out;
use crate::progress::report_progress;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Model directories, those of runs, or names on the Hugging Face hub, each after a --model of its own. The first is the reference: shares,
    /// differences and retention are of it.
    #[arg(long, value_name = "DIR", required = true)]
    pub(crate) model: Vec<PathBuf>,
    /// Tasks, separated by commas; `iiet eval --help` has a list [default: the heldout tasks, or the task
    /// that the reference was trained on].
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
    let tasks = match (&arguments.tasks, TaskSpec::read(&arguments.model[0])?) {
        (Some(tasks), _) => tasks.clone(),
        (None, Some(spec)) => vec![spec.name().to_owned()],
        (None, None) => REPORT_TASKS.map(str::to_owned).to_vec(),
    };
    let generated = asked_generated(&tasks, &arguments.model, &[], None)?;
    let backend = arguments.device.open()?;
    let settings = ReportSettings {
        tasks,
        evaluation: Settings {
            data: arguments.data.clone(),
            limit: arguments.limit.map(|limit| limit as usize),
            generated,
            split: arguments.split,
            ..arguments.held_out.settings()
        },
        host_memory: backend.on_host,
    };
    let report = report(
        &arguments.model,
        &settings,
        &backend.device,
        &report_progress,
    )?;
    let mut text = table(&report);
    if let Some(out) = &arguments.out {
        save(&report, out)?;
        let svg = out.with_extension("svg");
        draw_quality(&svg, &report)?;
        text += &format!("{}, {}\n", out.display(), svg.display());
    }
    out!("{text}")
}
