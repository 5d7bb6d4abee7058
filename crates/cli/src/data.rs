//! `iiet data`

use std::path::PathBuf;

use iiet_data::{inspect, prepare};
use iiet_train::{DataProgress, RunConfig};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Train the tokenizer and write the token files that training would.
    Prepare(Prepare),
    /// Print what a prepared corpus or a token file holds.
    Inspect(Inspect),
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
    /// A prepared folder, or a token file.
    path: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Prepare(arguments) => {
            let config = RunConfig::load(&arguments.config, &arguments.set)?;
            let prepared = prepare(&config.data, &DataProgress::default())?;
            println!("{}", inspect(&prepared.directory)?);
        }
        Command::Inspect(arguments) => {
            let inspection = inspect(&arguments.path)?;
            match arguments.json {
                true => println!("{}", serde_json::to_string_pretty(&inspection)?),
                false => println!("{inspection}"),
            }
        }
    }
    Ok(())
}
