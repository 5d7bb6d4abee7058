//! `iiet train`

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use iiet_distill::objective_of;
use iiet_train::{Difference, RunConfig, RunDirectory, RunOptions, Summary, train};

use crate::backend::DevicesArgument;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The configuration; configs/ has presets. A resumed run has its own.
    #[arg(long, value_name = "FILE", required_unless_present = "resume")]
    config: Option<PathBuf>,
    /// Override a key of the configuration, such as train.lr=1e-3; repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The run's directory [default: runs/ and the configuration's name; with --resume alone the
    /// run that was written to last].
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Go on from the newest whole checkpoint of the run.
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    devices: DevicesArgument,
}

/// Set by Ctrl-C.
static INTERRUPT: AtomicBool = AtomicBool::new(false);

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (path, run) = match (&arguments.config, &arguments.run) {
        (Some(path), run) => (path.clone(), run.clone()),
        (None, Some(run)) => to_resume(&RunDirectory::existing(Some(run), "")?),
        (None, None) => to_resume(&RunDirectory::last()?),
    };
    let config = RunConfig::load(&path, &arguments.set)?;
    let (chosen, devices) = arguments.devices.open()?;
    let objective = objective_of(&config, &chosen.device)?;
    let options = RunOptions {
        run,
        name: name_of(&path),
        resume: arguments.resume,
        on_host: chosen.on_host,
        objective: &*objective,
        interrupt: interrupt()?,
    };
    let summary = train(&config, &options, &devices)?;
    report(&summary);
    Ok(())
}

/// What a run is called after its configuration.
pub(crate) fn name_of(config: &Path) -> String {
    let stem = config.file_stem();
    stem.map_or_else(|| "run".into(), |stem| stem.to_string_lossy().into_owned())
}

/// Set from now on by Ctrl-C.
pub(crate) fn interrupt() -> anyhow::Result<&'static AtomicBool> {
    ctrlc::set_handler(|| {
        if INTERRUPT.swap(true, Ordering::Relaxed) {
            // Asked twice: not even a checkpoint.
            std::process::exit(130);
        }
        eprintln!("interrupted: writing a checkpoint after this step; once more to stop at once");
    })
    .context("cannot catch Ctrl-C")?;
    Ok(&INTERRUPT)
}

/// The configuration to go on with, and the run.
pub(crate) fn to_resume(run: &RunDirectory) -> (PathBuf, Option<PathBuf>) {
    let (path, otherwise) = run.config_to_resume();
    let own = run.config();
    for Difference { key, before, now } in otherwise {
        eprintln!(
            "{key} is {before} in the checkpoint and {now} in {own}; the checkpoint's is used, --config {own} uses the other",
            own = own.display()
        );
    }
    (path, Some(run.path().to_owned()))
}

pub(crate) fn report(summary: &Summary) {
    let Summary { run, baselines, .. } = summary;
    let Some(validation) = &summary.validation else {
        println!(
            "stopped after step {} of {}; go on with: --run {} --resume",
            summary.step,
            summary.steps,
            run.path().display()
        );
        return;
    };
    let against = |baseline: f64| {
        let percent = 100.0 * (validation.bits_per_byte / baseline - 1.0);
        let side = if percent > 0.0 { "above" } else { "below" };
        format!("the model is {:.0} % {side}", percent.abs())
    };
    println!(
        "\n{} steps, {} tokens in {:.0} s",
        summary.step,
        summary.tokens,
        summary.elapsed.as_secs_f64()
    );
    println!(
        "bits per byte of {} held-out tokens:",
        summary.validation_tokens
    );
    println!(
        "  this model                {:.3}",
        validation.bits_per_byte
    );
    let unigram = baselines.unigram_bits_per_byte;
    println!(
        "  token unigram entropy     {unigram:.3}   {}",
        against(unigram)
    );
    let gzip = baselines.gzip_bits_per_byte;
    println!("  gzip -9                   {gzip:.3}   {}", against(gzip));
    println!("curves  {}", run.curve().display());
    println!("metrics {}", run.metrics().display());
    println!("model   {}", run.model().display());
}
