//! `iiet`: train, inspect and run ODE-transformer language models.

mod backend;
mod data;
mod info;
mod logits;
mod train;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Train, inspect and run ODE-transformer language models.
#[derive(Parser)]
#[command(name = "iiet", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a model from a TOML configuration.
    Train(train::Arguments),
    /// Write the logits of given token ids to a safetensors file.
    Logits(logits::Arguments),
    /// Prepare a corpus for training, or look into a prepared one.
    #[command(subcommand)]
    Data(data::Command),
    /// Print a model's parameters, evaluations, FLOPs and memory.
    Info(info::Arguments),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The whole chain on one line, and no backtrace: these are mistakes of input.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Train(arguments) => train::run(&arguments),
        Command::Logits(arguments) => logits::run(&arguments),
        Command::Data(command) => data::run(&command),
        Command::Info(arguments) => info::run(&arguments),
    }
}
