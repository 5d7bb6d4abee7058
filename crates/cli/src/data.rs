//! `iiet data`

use std::path::{Path, PathBuf};

use anyhow::bail;
use iiet_data::{
    Corpus, DataError, TokenFile, find_prepared, inspect, inspect_task, inspect_within,
    prepare_corpus,
};
use iiet_distill::DistillSection;
use iiet_eval::write_held_out;
use iiet_train::RunConfig;

use crate::print::{out, outln};
use crate::progress::DataProgress;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Train the tokenizer and write the token files that training would; of a task, show examples.
    Prepare(Prepare),
    /// Print what a prepared corpus or a token file holds.
    Inspect(Inspect),
    /// Write the items of the heldout tasks, for `eval --heldout` where there is no Cargo workspace.
    Heldout(Heldout),
}

#[derive(clap::Args)]
pub(crate) struct Heldout {
    /// The folder to write heldout_TASK.jsonl files to. They follow from the Cargo.lock of the workspace
    /// around the working directory alone.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(clap::Args)]
pub(crate) struct Prepare {
    /// The configuration whose data section says what to prepare.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Override a key of the configuration, such as data.source=corpus.jsonl.zst; repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(clap::Args)]
pub(crate) struct Inspect {
    /// A prepared folder, a folder that holds some, or a token file.
    #[arg(required_unless_present = "config")]
    path: Option<PathBuf>,
    /// Instead of a path: all that a configuration trains on, with the shares of a mixture, or examples
    /// of a task.
    #[arg(long, value_name = "FILE", conflicts_with = "path")]
    config: Option<PathBuf>,
    /// Override a key of the configuration; repeatable.
    #[arg(long, value_name = "KEY=VALUE", requires = "config")]
    set: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Prepare(arguments) => {
            print_corpus(&RunConfig::load(&arguments.config, &arguments.set)?, false)
        }
        Command::Inspect(Inspect {
            path: Some(path),
            json,
            ..
        }) => {
            let found = find_prepared(path)?;
            let inspections = found
                .iter()
                .map(|path| inspect(path))
                .collect::<Result<Vec<_>, _>>()?;
            match (&inspections[..], json) {
                ([one], true) => outln!("{}", serde_json::to_string_pretty(one)?),
                (several, true) => outln!("{}", serde_json::to_string_pretty(several)?),
                (several, false) => several
                    .iter()
                    .try_for_each(|inspection| outln!("{inspection}")),
            }
        }
        Command::Inspect(Inspect {
            config: Some(config),
            set,
            json,
            ..
        }) => print_corpus(&RunConfig::load(config, set)?, *json),
        Command::Heldout(Heldout { out }) => {
            for path in write_held_out(Path::new("."), out)? {
                outln!("{}", path.display())?;
            }
            Ok(())
        }
        Command::Inspect(_) => bail!("data inspect needs a path or --config"),
    }
}

fn print_corpus(config: &RunConfig, json: bool) -> anyhow::Result<()> {
    config.objective_section(&[DistillSection::NAME])?;
    if let Some(task) = config.data.source.task() {
        let inspection = inspect_task(task, config.train.seed)?;
        return match json {
            true => outln!("{}", serde_json::to_string_pretty(&inspection)?),
            false => out!("{inspection}"),
        };
    }
    let corpus = prepare_corpus(&config.data, &DataProgress::default())?;
    let shares = shares(config, &corpus)?;
    let sources = corpus.sources.iter();
    let folders = sources.filter_map(|source| Some(&source.prepared()?.directory));
    let inspections = folders
        .map(|folder| inspect_within(folder, Some(config.model.seq_len)))
        .collect::<Result<Vec<_>, _>>()?;
    if json {
        let value = serde_json::json!({ "sources": shares, "folders": inspections });
        return outln!("{}", serde_json::to_string_pretty(&value)?);
    }
    if shares.len() > 1 {
        outln!(
            "{:<24} {:>9} {:>9} {:>14} {:>12} {:>10} {:>10}",
            "source",
            "weight",
            "share",
            "tokens",
            "held out",
            "windows",
            "epochs"
        )?;
        for share in &shares {
            outln!(
                "{:<24} {:>9} {:>8.3}% {:>14} {:>12} {:>10} {:>10.3}",
                share.name,
                share.weight,
                100.0 * share.share,
                share.tokens,
                share.held_out,
                share.windows,
                share.epochs,
            )?;
        }
        let steps = config.train.steps;
        outln!("epochs: of each source after the {steps} steps of the configuration\n")?;
    }
    for inspection in inspections {
        outln!("{inspection}")?;
    }
    Ok(())
}

/// What one source gives to a run.
#[derive(serde::Serialize)]
struct Share {
    name: String,
    weight: f64,
    /// Of all rows, from 0 to 1.
    share: f64,
    tokens: u64,
    held_out: u64,
    /// Or pairs of source and target.
    windows: u64,
    /// After all steps.
    epochs: f64,
}

fn shares(config: &RunConfig, corpus: &Corpus) -> Result<Vec<Share>, DataError> {
    let (train, seq) = (&config.train, config.model.seq_len);
    let batches = corpus.training_batches(seq, train.size(), train.seed)?;
    // A configuration may ask for more than 64 bits count; the figure is then a lower bound.
    let micro_batches = train.steps.saturating_mul(train.accumulation as u64);
    let epochs = batches.epochs_before(micro_batches);
    let figures = batches.shares().into_iter().zip(epochs);
    let sources = corpus.sources.iter().zip(batches.epoch_rows());
    Ok(sources
        .zip(figures)
        .map(|((source, windows), (share, epochs))| Share {
            name: source.name.clone(),
            weight: source.weight,
            share,
            tokens: source.train().text().map_or(0, TokenFile::len),
            held_out: source.validation().text().map_or(0, TokenFile::len),
            windows,
            epochs,
        })
        .collect())
}
