//! `iiet train`

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use iiet_distill::objective_of;
use iiet_train::{
    Baselines, ClaimedRun, Difference, Evaluation, Event, Observer, Ranks, RunConfig, RunDirectory,
    RunOptions, Summary, train,
};

use crate::backend::DevicesArgument;
use crate::print::{errln, outln};
use crate::progress::RunProgress;
use crate::ranks::{Quiet, RanksArgument, data_progress};
use crate::signals;

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
    /// Resume from the newest complete checkpoint of the run.
    #[arg(long)]
    resume: bool,
    /// Stop after this step with a checkpoint, to go on later; the learning rate's schedule remains that
    /// of train.steps.
    #[arg(long, value_name = "STEP")]
    until: Option<u64>,
    #[command(flatten)]
    devices: DevicesArgument,
    #[command(flatten)]
    ranks: RanksArgument,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    arguments.ranks.together(|ranks| on_rank(arguments, ranks))
}

fn on_rank(arguments: &Arguments, ranks: &Ranks) -> anyhow::Result<()> {
    let (path, run) = match (&arguments.config, &arguments.run) {
        (Some(path), run) => (path.clone(), run.clone()),
        (None, Some(run)) => to_resume(&RunDirectory::existing(Some(run), "")?),
        (None, None) => to_resume(&RunDirectory::last()?),
    };
    let config = RunConfig::load(&path, &arguments.set)?;
    let (chosen, devices) = arguments.devices.open(ranks)?;
    let objective = objective_of(&config, &chosen.device)?;
    let name = name_of(&path);
    let interrupt = signals::catch()?;
    let options = RunOptions {
        run: ClaimedRun::of_ranks(ranks, || match arguments.resume {
            true => ClaimedRun::existing(run.as_deref(), &name),
            false => ClaimedRun::new(run.as_deref(), &name),
        })?,
        revision: git_revision(),
        on_host: chosen.on_host,
        objective: &*objective,
        interrupt,
        progress: &*data_progress(ranks),
        observer: &mut StopAfter {
            step: arguments.until,
            interrupt,
            observer: match ranks.is_first() {
                true => Box::new(RunProgress::new(&chosen)),
                false => Box::new(Quiet),
            },
        },
    };
    let summary = train(&config, options, &devices)?;
    match ranks.is_first() {
        true => report(&summary),
        false => Ok(()),
    }
}

/// Ends a run after a step as a signal would.
struct StopAfter<'a> {
    step: Option<u64>,
    interrupt: &'a AtomicBool,
    observer: Box<dyn Observer>,
}

impl Observer for StopAfter<'_> {
    fn on(&mut self, event: &Event<'_>) {
        let step = match event {
            // A run that already stands there takes no further step.
            Event::Started(started) => Some(started.step),
            Event::Step { step } => Some(*step),
            _ => None,
        };
        if step.is_some_and(|step| self.step.is_some_and(|last| step >= last)) {
            self.interrupt.store(true, Ordering::Relaxed);
        }
        self.observer.on(event);
    }
}

/// The run's name, after its configuration file.
pub(crate) fn name_of(config: &Path) -> String {
    let stem = config.file_stem();
    stem.map_or_else(|| "run".into(), |stem| stem.to_string_lossy().into_owned())
}

/// The commit checked out in the current directory, marked if files differ from it.
pub(crate) fn git_revision() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changes.is_empty() {
        commit
    } else {
        format!("{commit} with changes")
    })
}

/// The configuration and the run to resume.
pub(crate) fn to_resume(run: &RunDirectory) -> (PathBuf, Option<PathBuf>) {
    let (path, otherwise) = run.config_to_resume();
    let own = run.config();
    for Difference { key, before, now } in otherwise {
        errln!(
            "{key} is {before} in the checkpoint and {now} in {own}; the checkpoint's is used, --config {own} uses the other",
            own = own.display()
        );
    }
    (path, Some(run.path().to_owned()))
}

/// Prints how a run ended. All results are in files already.
pub(crate) fn report(summary: &Summary) -> anyhow::Result<()> {
    let Summary { run, baselines, .. } = summary;
    let Some(validation) = &summary.validation else {
        return outln!(
            "stopped after step {} of {}, with the checkpoint {}; resume with: --run {} --resume",
            summary.step,
            summary.steps,
            summary.checkpoint.display(),
            run.path().display()
        );
    };
    signals::forget();
    let ended = format!(
        "\n{} steps, {} tokens in {:.0} s",
        summary.step,
        summary.tokens,
        summary.elapsed.as_secs_f64()
    );
    let lines = [
        ended,
        result(validation, baselines, summary.validation_tokens),
        format!("curves  {}", run.curve().display()),
        format!("metrics {}", run.metrics().display()),
        format!("model   {}", run.model().display()),
    ];
    outln!("{}", lines.join("\n"))
}

/// What the model makes of what was held out, beside what can be had without one.
fn result(validation: &Evaluation, baselines: &Baselines, tokens: u64) -> String {
    let (Some(bits), Some(unigram), Some(gzip)) = (
        validation.bits_per_byte,
        baselines.unigram_bits_per_byte,
        baselines.gzip_bits_per_byte,
    ) else {
        let right = validation.accuracy.map_or_else(String::new, |share| {
            format!("   {:.2} % right", 100.0 * share)
        });
        let lines = [
            format!("nats per target of {tokens} held-out targets:"),
            format!("  this model                {:.3}{right}", validation.loss),
            format!("  entropy of the targets    {:.3}", baselines.unigram_loss),
        ];
        return lines.join("\n");
    };
    let against = |baseline: f64| {
        let percent = 100.0 * (bits / baseline - 1.0);
        let side = if percent > 0.0 { "above" } else { "below" };
        format!("the model is {:.0} % {side}", percent.abs())
    };
    let lines = [
        format!("bits per byte of {tokens} held-out tokens:"),
        format!("  this model                {bits:.3}"),
        format!(
            "  token unigram entropy     {unigram:.3}   {}",
            against(unigram)
        ),
        format!("  gzip -9                   {gzip:.3}   {}", against(gzip)),
    ];
    lines.join("\n")
}
