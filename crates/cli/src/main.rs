//! `iiet`: train, inspect and run ODE-transformer language models.

// A failing print must not panic: `outln!` and `errln!` instead.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod along;
mod backend;
mod beam;
mod calibration;
mod compare;
mod conformance;
mod convert;
mod corrections;
mod data;
mod devices;
mod distill;
mod eval;
mod generate;
mod held_out;
mod influence;
mod info;
mod logits;
mod model_directory;
mod out_of_memory;
mod output;
mod plan;
mod precision;
mod print;
mod progress;
mod prune;
mod quantize;
mod ranks;
mod rewritten;
mod score;
mod sides;
mod signals;
mod sweep;
mod train;

use std::path::PathBuf;
use std::process::ExitCode;
use std::slice;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use crate::model_directory::Converted;

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
    /// Plan a run over several processes: memory, bytes sent, time and efficiency.
    Plan(plan::Arguments),
    /// Train the combinations of a grid of settings, and compare them.
    Sweep(sweep::Arguments),
    /// Evaluate a model, or compare two, on tasks of language modelling.
    Eval(eval::Arguments),
    /// Report on models side by side: costs, speeds, quality, and what they retain of the first.
    Compare(compare::Arguments),
    /// Score texts against references: BLEU, chrF, chrF++ and ROUGE.
    Score(score::Arguments),
    /// Continue prompts with a language model, or translate or summarise sources with a sequence-to-sequence
    /// model.
    Generate(generate::Arguments),
    /// Convert a model to another solver, for further training.
    Convert(convert::Arguments),
    /// Store the matrices of a model in 8 or 4 bits.
    Quantize(quantize::Arguments),
    /// Set weights of a model to zero.
    Prune(prune::Arguments),
    /// Write the logits of given token ids to a safetensors file.
    Logits(logits::Arguments),
    /// Measure what each correction of an iterated model contributes.
    Influence(influence::Arguments),
    /// Distil an iterated model into one with fewer corrections.
    Distill(distill::Arguments),
    /// Prepare a corpus for training, or inspect a prepared one.
    #[command(subcommand)]
    Data(data::Command),
    /// Print a model's parameters, evaluations, FLOPs and memory.
    Info(info::Arguments),
    /// Check that a device computes the same results as PyTorch.
    Conformance(conformance::Arguments),
    /// List the available devices and backends, and on flex the matrix products in use (IIET_PRODUCTS selects others).
    Devices,
    /// Print a script that completes commands and options in a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

#[global_allocator]
static ALLOCATOR: out_of_memory::Reporting = out_of_memory::Reporting;

fn main() -> ExitCode {
    iiet_train::keep_freed_memory();
    let arguments = Arguments::from_arg_matches(&parser().get_matches());
    let mut command = arguments.unwrap_or_else(|error| error.exit()).command;
    let (work, remedy) = command.work();
    out_of_memory::set_work(work, remedy);
    let mut converted = Converted::default();
    let found = start_threads().and_then(|()| command.find_models(&mut converted));
    match found.and_then(|()| run(command)) {
        Ok(()) => signals::exit_code().map_or(ExitCode::SUCCESS, ExitCode::from),
        Err(error) => {
            print::errln!("error: {}", converted.with_origins(message(&error)));
            ExitCode::FAILURE
        }
    }
}

/// The parser of the command line. A negative number is the value of the option before it, so that it is refused with what
/// is allowed, and not as an unknown option.
fn parser() -> clap::Command {
    fn with_negative_numbers(command: clap::Command) -> clap::Command {
        let allow = |argument: clap::Arg| match argument.get_action().takes_values() {
            true => argument.allow_negative_numbers(true),
            false => argument,
        };
        command
            .mut_args(allow)
            .mut_subcommands(with_negative_numbers)
    }
    with_negative_numbers(Arguments::command())
}

/// Starts the threads for all commands. If they were started at first use, they would panic if the system has
/// none left.
fn start_threads() -> anyhow::Result<()> {
    let started = rayon::ThreadPoolBuilder::new().build_global();
    started.context(
        "cannot start the threads to compute with; raise the limits of processes (ulimit -u) and of \
         memory (ulimit -v), or set RAYON_NUM_THREADS=1",
    )
}

impl Command {
    /// The description of the work and what to lower, for a message about exhausted memory.
    fn work(&self) -> (&'static str, &'static str) {
        match self {
            Self::Train(_) | Self::Distill(_) | Self::Sweep(_) => (
                "training",
                "lower train.batch or the sizes of the model, or set train.recompute = \"layer\"; the \
                 last checkpoint is untouched",
            ),
            Self::Eval(_) | Self::Compare(_) => {
                ("evaluating", "lower --limit, or use --precision bf16")
            }
            Self::Score(_) => ("scoring texts", "divide the files"),
            Self::Generate(_) => (
                "generating",
                "lower --batch-size or --max-tokens, or use --precision bf16",
            ),
            Self::Convert(_) => ("converting", "the weights of one model in f32 must fit"),
            Self::Quantize(_) => ("quantising", "lower --tokens"),
            Self::Prune(_) => ("pruning", "lower --tokens"),
            Self::Logits(_) => ("computing logits", "give fewer --ids"),
            Self::Influence(_) => ("measuring influences", "lower --batch"),
            Self::Data(_) => (
                "preparing data",
                "lower data.vocab_size, or divide large records",
            ),
            Self::Plan(_) => ("timing steps", "give --peak TFLOP/s"),
            Self::Info(_) | Self::Conformance(_) | Self::Devices | Self::Completions { .. } => {
                ("starting", "raise the limit")
            }
        }
    }

    /// Puts the directories that are meant in the place of those given.
    fn find_models(&mut self, converted: &mut Converted) -> anyhow::Result<()> {
        let converts = matches!(self, Self::Convert(_));
        let given: &mut [PathBuf] = match self {
            Self::Eval(arguments) => &mut arguments.model,
            Self::Compare(arguments) => &mut arguments.model,
            Self::Generate(arguments) => slice::from_mut(&mut arguments.model),
            Self::Convert(arguments) => slice::from_mut(&mut arguments.model),
            Self::Quantize(arguments) => slice::from_mut(&mut arguments.rewrite.model),
            Self::Prune(arguments) => slice::from_mut(&mut arguments.rewrite.model),
            Self::Logits(arguments) => slice::from_mut(&mut arguments.model),
            Self::Influence(arguments) => slice::from_mut(&mut arguments.model),
            Self::Info(arguments) => slice::from_mut(&mut arguments.model),
            Self::Distill(arguments) => arguments.teacher.as_mut_slice(),
            Self::Train(_)
            | Self::Plan(_)
            | Self::Sweep(_)
            | Self::Score(_)
            | Self::Data(_)
            | Self::Conformance(_)
            | Self::Devices
            | Self::Completions { .. } => &mut [],
        };
        for path in given {
            if !(converts && model_directory::is_gguf(path)) {
                *path = model_directory::find(path, converted)?;
            }
        }
        let origins =
            |models: &[PathBuf]| models.iter().map(|path| converted.origin(path)).collect();
        match self {
            Self::Eval(arguments) => arguments.origins = origins(&arguments.model),
            Self::Compare(arguments) => arguments.origins = origins(&arguments.model),
            _ => {}
        }
        Ok(())
    }
}

/// The error and its causes on one line, without repetition: the libraries' messages contain their causes
/// already. Without a backtrace in every environment, because these are errors of input.
fn message(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |message, cause| {
        let cause = cause.to_string();
        match message.contains(&cause) {
            true => message,
            false if message.is_empty() => cause,
            false => format!("{message}: {cause}"),
        }
    })
}

fn completions(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    let mut command = parser();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut script);
    print::out!("{}", String::from_utf8_lossy(&script))
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Train(arguments) => train::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Sweep(arguments) => sweep::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Score(arguments) => score::run(&arguments),
        Command::Generate(arguments) => generate::run(&arguments),
        Command::Convert(arguments) => convert::run(&arguments),
        Command::Quantize(arguments) => quantize::run(&arguments),
        Command::Prune(arguments) => prune::run(&arguments),
        Command::Logits(arguments) => logits::run(&arguments),
        Command::Influence(arguments) => influence::run(&arguments),
        Command::Distill(arguments) => distill::run(&arguments),
        Command::Data(command) => data::run(&command),
        Command::Info(arguments) => info::run(&arguments),
        Command::Conformance(arguments) => conformance::run(&arguments),
        Command::Devices => devices::run(),
        Command::Completions { shell } => completions(shell),
    }
}
