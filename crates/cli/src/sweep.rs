//! `iiet sweep`

mod process;

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use iiet_data::{DataConfig, prepare_corpus};
use iiet_files::write_file;
use iiet_plots::draw_sweep;
use iiet_sweep::{
    Axis, Event, Observer, Outcome, State, Sweep, SweepDirectory, SweepOptions, Table, TrialResult,
    read_results,
};
use iiet_train::{Ranks, RunConfig};

use self::process::TrainProcesses;
use crate::backend::DevicesArgument;
use crate::output;
use crate::print::{errln, outln};
use crate::progress::DataProgress;
use crate::signals;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The configuration that every trial starts from.
    #[arg(long, value_name = "FILE", required_unless_present = "table")]
    config: Option<PathBuf>,
    /// Override a key of the configuration for all trials; repeatable.
    #[arg(long, value_name = "KEY=VALUE", requires = "config")]
    set: Vec<String>,
    /// Values of a key to try, as in TOML, such as train.lr=1e-3,3e-3; several --grid are combined with
    /// each other. A value that holds commas is quoted or in brackets: `model.solver.iterations=[3,1],0`.
    /// Tables of a section change keys together: 'model={n_layers=2,d_model=64},{n_layers=4,d_model=32}'
    #[arg(long, value_name = "KEY=VALUE,..", requires = "config")]
    grid: Vec<String>,
    /// Seeds for each combination: train.seed of the configuration and the numbers after it.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "config")]
    seeds: u64,
    /// Steps of a full trial, instead of train.steps.
    #[arg(long, value_name = "STEPS", requires = "config")]
    budget: Option<u64>,
    /// Successive halving: train every combination for a part of the steps, the half with the lower
    /// validation loss twice as long, and so on.
    #[arg(long, requires = "config")]
    halving: bool,
    /// Trials at a time; they share the threads.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "config")]
    jobs: usize,
    /// Processes of a trial, which share its micro-batches: started by srun within an allocation of Slurm's, else by
    /// mpirun.
    #[cfg(feature = "mpi")]
    #[arg(long, value_name = "N", default_value_t = 1, requires = "config", value_parser = clap::value_parser!(u16).range(1..))]
    ranks_per_trial: u16,
    /// Try failed trials of an earlier call again.
    #[arg(long, requires = "config")]
    retry: bool,
    /// The sweep's directory: new, or one to go on with by the same command.
    #[arg(long, value_name = "DIR", required_unless_present = "table")]
    out: Option<PathBuf>,
    /// Instead of a sweep: print the table of one or several sweep.jsonl.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "config")]
    table: Vec<PathBuf>,
    /// What to compare, a field of metrics.jsonl [default: validation_accuracy,
    /// validation_bits_per_byte or validation_loss, the first that was measured].
    #[arg(long, value_name = "FIELD")]
    metric: Option<String>,
    /// The key across in the picture, or evaluations_per_token, where a line joins models that differ in depth and
    /// number of corrections alone [default: the key with the most different numbers].
    #[arg(long, value_name = "KEY")]
    x: Option<String>,
    /// With --table: the picture to draw, as SVG.
    #[arg(long, value_name = "FILE", requires = "table")]
    picture: Option<PathBuf>,
    #[command(flatten)]
    devices: DevicesArgument,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match (&arguments.config, &arguments.out) {
        (Some(config), Some(out)) => sweep(arguments, config, out),
        _ => table(arguments),
    }
}

/// Prints and draws what earlier sweeps wrote.
fn table(arguments: &Arguments) -> anyhow::Result<()> {
    let mut results = Vec::new();
    for path in &arguments.table {
        results.append(&mut read_results(path)?);
    }
    let table = Table::of(&results, arguments.metric.as_deref())?;
    if let Some(path) = &arguments.picture {
        output::prepare(path)?;
        draw_sweep(path, &results, &table, arguments.x.as_deref())?;
    }
    outln!("{}", table.to_markdown(&results).trim_end())
}

fn sweep(arguments: &Arguments, config: &Path, out: &Path) -> anyhow::Result<()> {
    let mut sets = arguments.set.clone();
    sets.extend(arguments.budget.map(|steps| format!("train.steps={steps}")));
    let grid = arguments.grid.iter().map(|text| text.parse::<Axis>());
    let directory = SweepDirectory::new(out);
    let mut sweep = Sweep::open(SweepOptions {
        directory: directory.clone(),
        config: RunConfig::load(config, &sets)?,
        grid: grid.collect::<Result<_, _>>()?,
        seeds: arguments.seeds,
        halving: arguments.halving,
        jobs: arguments.jobs,
        threads: rayon::current_num_threads(),
        retry: arguments.retry,
    })?;
    // What every trial would stumble over is found here.
    arguments.devices.open(&Ranks::default())?;
    prepare(&sweep)?;
    announce(&sweep, out);
    let mut report = Report {
        directory: &directory,
        metric: arguments.metric.as_deref(),
        x: arguments.x.as_deref(),
    };
    #[cfg(feature = "mpi")]
    let ranks = usize::from(arguments.ranks_per_trial);
    #[cfg(not(feature = "mpi"))]
    let ranks = 1;
    let mut processes = TrainProcesses::new(arguments.devices.as_arguments(), ranks)?;
    let interrupt = signals::catch()?;
    signals::training(true);
    let outcome = sweep.run(&mut processes, interrupt, &mut report);
    signals::training(false);
    report.write(sweep.results())?;
    let outcome = outcome?;
    let results = sweep.results();
    let table = Table::of(results, arguments.metric.as_deref())?;
    outln!("\n{}", table.to_markdown(results))?;
    outln!(
        "trials  {}\ntable   {}\npicture {}",
        directory.results().display(),
        directory.table().display(),
        directory.picture().display()
    )?;
    let of = |state: State| {
        results
            .iter()
            .filter(|result| result.state == state)
            .count()
    };
    if outcome == Outcome::Stopped {
        outln!(
            "stopped with {} of {} trials finished; the same command goes on with the others",
            of(State::Finished),
            results.len()
        )?;
        ensure!(
            signals::exit_code().is_some(),
            "trials were stopped from outside"
        );
        return Ok(());
    }
    signals::forget();
    if of(State::Finished) == 0 {
        bail!(
            "no trial finished; what they printed is in {}",
            directory.logs().display()
        );
    }
    Ok(())
}

/// Prepares every corpus that trials use, so that they find it and its mistakes are found before.
fn prepare(sweep: &Sweep) -> anyhow::Result<()> {
    let mut prepared: Vec<&DataConfig> = Vec::new();
    for trial in sweep.trials() {
        if !prepared.contains(&&trial.config.data) {
            prepare_corpus(&trial.config.data, &DataProgress::default())?;
            prepared.push(&trial.config.data);
        }
    }
    Ok(())
}

fn announce(sweep: &Sweep, out: &Path) {
    let finished = |result: &&TrialResult| result.state == State::Finished;
    errln!(
        "{} trials, {} finished before; {} at a time with {} threads each; into {}",
        sweep.trials().len(),
        sweep.results().iter().filter(finished).count(),
        sweep.jobs(),
        sweep.threads(),
        out.display()
    );
    if let [rungs @ .., _] = sweep.rungs()
        && !rungs.is_empty()
    {
        let rungs: Vec<String> = rungs.iter().map(u64::to_string).collect();
        errln!("halved after steps {}", rungs.join(", "));
    }
}

/// Shows a sweep, and keeps its table and picture up to date.
struct Report<'a> {
    directory: &'a SweepDirectory,
    metric: Option<&'a str>,
    x: Option<&'a str>,
}

impl Report<'_> {
    fn write(&self, results: &[TrialResult]) -> anyhow::Result<()> {
        use std::io::Write;

        let table = Table::of(results, self.metric)?;
        let text = table.to_markdown(results);
        write_file(&self.directory.table(), |file| {
            file.write_all(text.as_bytes())
        })?;
        draw_sweep(&self.directory.picture(), results, &table, self.x)?;
        Ok(())
    }
}

impl Observer for Report<'_> {
    fn on(&mut self, event: &Event<'_>, results: &[TrialResult]) {
        match event {
            Event::Begun {
                trial,
                resume,
                until,
            } => {
                let verb = if *resume { "goes on" } else { "begins" };
                errln!("{} {verb}, until step {until}", trial.name);
            }
            Event::Held { trial } => errln!(
                "{}: another process holds the run; waiting for it to end",
                trial.name
            ),
            Event::Ended { result, done, of } => {
                errln!("[{done}/{of}] {}", line(result));
                // A quantity that was asked for may not have been measured yet.
                if let Err(error) = self.write(results)
                    && self.metric.is_none()
                {
                    errln!("the table could not be written: {error}");
                }
            }
            Event::Halved {
                step,
                kept,
                dropped,
            } => errln!("step {step}: {dropped} combinations dropped, {kept} go on"),
            _ => {}
        }
    }
}

/// How a trial stands, in a line.
fn line(result: &TrialResult) -> String {
    let state = match (result.state, &result.reason) {
        (State::Failed, Some(reason)) => return format!("{}: failed: {reason}", result.trial),
        (State::Unfinished, _) => format!("stopped after step {} of {}", result.step, result.steps),
        _ => format!("{} steps", result.step),
    };
    let number = |name: &str, unit: &str| {
        let value = result.last.get(name);
        value.map_or_else(String::new, |value| format!(", {unit} {value:.4}"))
    };
    format!(
        "{}: {state} in {:.1} s{}{}{}",
        result.trial,
        result.seconds,
        number("validation_loss", "validation loss"),
        number("validation_bits_per_byte", "bits per byte"),
        number("validation_accuracy", "accuracy"),
    )
}
