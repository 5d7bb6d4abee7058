//! `iiet distill`

mod report;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use burn::tensor::Device;
use iiet_data::{Corpus, prepare_corpus};
use iiet_distill::{
    DistillSection, Distillation, Influence, by_budget, by_hand, by_threshold, check_budget,
    check_threshold, corrections, load_student, objective_of,
};
use iiet_model::{
    EncoderDecoder, LanguageModel, ModelKind, Side, load_config, model_hash, model_kind,
};
use iiet_ode::{IterationSchedule, Options, SolverConfig};
use iiet_train::{
    ClaimedRun, Devices, Event, ModelSection, Observer, Ranks, RunConfig, RunDirectory, RunOptions,
    TrainingObjective, train,
};

use self::report::compare;
use crate::backend::DevicesArgument;
use crate::influence;
use crate::print::{errln, outln};
use crate::progress::{DataProgress, RunProgress};
use crate::ranks::{Quiet, RanksArgument, data_progress};
use crate::sides::SideArgument;
use crate::signals;
use crate::train::{self, git_revision, name_of, to_resume};

/// File in the run directory with the influences of the schedule.
const INFLUENCE: &str = "influence.json";

/// Windows at a time while influences are measured; the result does not depend on it.
const CALIBRATION_BATCH: usize = 4;

#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("schedules").args(["threshold", "evaluations", "schedule"]))]
pub(crate) struct Arguments {
    /// The model directory of the teacher, or that of its run: an iterated model.
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "resume",
        conflicts_with = "resume"
    )]
    pub(crate) teacher: Option<PathBuf>,
    /// Keep the corrections of each layer up to the first whose influence is below TAU.
    #[arg(long, value_name = "TAU", conflicts_with = "resume")]
    threshold: Option<f64>,
    /// Drop the least influential corrections until a layer takes MEAN evaluations on average, its
    /// guess included.
    #[arg(long, value_name = "MEAN", conflicts_with = "resume")]
    evaluations: Option<f64>,
    /// The corrections of each layer by hand, as in 3,1,0; or one number for all.
    #[arg(long, value_name = "R,..", conflicts_with = "resume")]
    schedule: Option<String>,
    /// The configuration: the sections data, train and, for other loss weights, distill; configs/distill.toml
    /// is one. A resumed run has its own.
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "resume",
        conflicts_with = "resume"
    )]
    config: Option<PathBuf>,
    #[command(flatten)]
    side: SideArgument,
    /// Override a key of the configuration, such as distill.temperature=2; repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Tokens of the training text to measure influences on.
    #[arg(long, value_name = "N", default_value_t = 65_536)]
    calibration_tokens: u64,
    /// The most documents of each task in the report at the end; 0 for no report.
    #[arg(long, value_name = "N", default_value_t = 256)]
    report_limit: usize,
    /// The run's directory [default: runs/ and the configuration's name; with --resume alone the
    /// run that was written to last].
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Resume from the newest complete checkpoint of the run.
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    devices: DevicesArgument,
    #[command(flatten)]
    ranks: RanksArgument,
}

/// A run that is ready to be trained.
struct Ready {
    config: RunConfig,
    objective: Box<dyn TrainingObjective>,
    run: ClaimedRun,
    influence: Option<Influence>,
    /// Whether the schedule could be printed; a failure must not end the training.
    printed: anyhow::Result<()>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    arguments.ranks.together(|ranks| on_rank(arguments, ranks))
}

fn on_rank(arguments: &Arguments, ranks: &Ranks) -> anyhow::Result<()> {
    let (chosen, devices) = arguments.devices.open(ranks)?;
    let interrupt = signals::catch()?;
    let ready = match (&arguments.teacher, &arguments.config) {
        (Some(teacher), Some(config)) => fresh(arguments, teacher, config, &devices)?,
        _ => resumed(arguments, &devices)?,
    };
    let mut progress: Box<dyn Observer> = match ranks.is_first() {
        true => Box::new(StudentProgress {
            influence: ready.influence,
            run: RunProgress::new(&chosen),
        }),
        false => Box::new(Quiet),
    };
    let options = RunOptions {
        run: ready.run,
        revision: git_revision(),
        on_host: chosen.on_host,
        objective: &*ready.objective,
        interrupt,
        progress: &*data_progress(ranks),
        observer: &mut *progress,
    };
    let summary = train(&ready.config, options, &devices)?;
    if !ranks.is_first() {
        return Ok(());
    }
    let printed = train::report(&summary);
    if summary.validation.is_some() && arguments.report_limit > 0 {
        compare(&ready.config, &summary.run, &chosen, arguments.report_limit)?;
    }
    ready.printed.and(printed)
}

/// Shows a run, and keeps the influences that its schedule follows from in its directory.
struct StudentProgress {
    influence: Option<Influence>,
    run: RunProgress,
}

impl Observer for StudentProgress {
    fn on(&mut self, event: &Event<'_>) {
        self.run.on(event);
        if let Event::Started(started) = event
            && let Some(influence) = &self.influence
            && let Err(error) = influence::write(influence, &started.run.path().join(INFLUENCE))
        {
            errln!("the influences could not be written: {error:#}");
        }
    }
}

fn fresh(
    arguments: &Arguments,
    teacher: &Path,
    file: &Path,
    devices: &Devices,
) -> anyhow::Result<Ready> {
    let device = devices.first();
    let name = name_of(file);
    let (section, side) = section(arguments, teacher)?;
    let hash = model_hash(teacher)?;
    let mut config = load_student(file, &section, (teacher, &hash), &arguments.set)?;
    // Checked before the work, not after it.
    devices.refuse_uneven(&config.train)?;
    // Claimed before the measurement, which may take long.
    let ranks = devices.ranks();
    let run = ClaimedRun::of_ranks(ranks, || ClaimedRun::new(arguments.run.as_deref(), &name))?;
    let (solver, n_layers) = stack(&mut config.model, side);
    let all = corrections(solver, n_layers)?;
    check_schedule(arguments, &all)?;
    let section = DistillSection::of(&config)?.context("invariant: a student has a teacher")?;
    let teacher = Teacher::open(&section, side, device)?;
    let mut influence = None;
    let schedule: IterationSchedule = ranks.of_first(|| {
        let corpus = prepare_corpus(&config.data, &DataProgress::default())?;
        teacher.check_tokenizer(&corpus)?;
        let (schedule, measured) = schedule(arguments, &teacher, &all, &corpus, device)?;
        influence = measured;
        anyhow::Ok(schedule)
    })?;
    let kept = schedule.per_layer(n_layers);
    let evaluations: usize = kept.iter().map(|r| r + 1).sum();
    let printed = match ranks.is_first() {
        false => Ok(()),
        true => influence
            .iter()
            .try_for_each(influence::say)
            .and_then(|()| {
                outln!(
                    "corrections kept {kept:?}: {:.2} evaluations per layer",
                    evaluations as f64 / kept.len() as f64
                )
            }),
    };
    let (solver, _) = stack(&mut config.model, side);
    *solver = solver.clone().with_iterations(schedule);
    Ok(Ready {
        config,
        objective: teacher.objective(),
        run,
        influence,
        printed,
    })
}

/// What describes the teacher in a configuration, and the side of a sequence-to-sequence model whose
/// corrections are dropped.
fn section(arguments: &Arguments, teacher: &Path) -> anyhow::Result<(ModelSection, Option<Side>)> {
    Ok(match model_kind(teacher)? {
        ModelKind::EncoderDecoder => {
            let config = EncoderDecoder::load_config(teacher)?;
            let side = arguments.side.of(&config)?;
            (ModelSection::of_sequences(&config), Some(side))
        }
        _ => {
            arguments.side.refuse(teacher)?;
            (ModelSection::of(&load_config(teacher)?), None)
        }
    })
}

/// The solver and the number of layers whose corrections are dropped.
fn stack(model: &mut ModelSection, side: Option<Side>) -> (&mut SolverConfig, usize) {
    match (side, &mut model.encoder) {
        (Some(Side::Encoder), Some(encoder)) => (&mut encoder.solver, encoder.n_layers),
        _ => (&mut model.solver, model.n_layers),
    }
}

/// A teacher of either kind.
enum Teacher {
    OfTexts(Box<Distillation<LanguageModel>>),
    OfSequences(Box<Distillation<EncoderDecoder>>, Side),
}

impl Teacher {
    fn open(section: &DistillSection, side: Option<Side>, device: &Device) -> anyhow::Result<Self> {
        Ok(match side {
            None => Self::OfTexts(Box::new(Distillation::open(section, device)?)),
            Some(side) => Self::OfSequences(Box::new(Distillation::open(section, device)?), side),
        })
    }

    fn check_tokenizer(&self, corpus: &Corpus) -> anyhow::Result<()> {
        match self {
            Self::OfTexts(objective) => objective.check_tokenizer(&corpus.tokenizer)?,
            Self::OfSequences(objective, _) => objective.check_tokenizer(&corpus.tokenizer)?,
        }
        Ok(())
    }

    fn measure(&self, corpus: &Corpus, tokens: u64, device: &Device) -> anyhow::Result<Influence> {
        let sources = corpus.train_rows();
        Ok(match self {
            Self::OfTexts(objective) => {
                let teacher = objective.teacher();
                influence::measure(teacher, &sources, tokens, CALIBRATION_BATCH, device)?
            }
            Self::OfSequences(objective, side) => {
                let (pairs, _) = sources
                    .first()
                    .context("invariant: a corpus has a source")?;
                let teacher = objective.teacher();
                influence::measure_pairs(teacher, *side, pairs, tokens, CALIBRATION_BATCH, device)?
            }
        })
    }

    fn objective(self) -> Box<dyn TrainingObjective> {
        match self {
            Self::OfTexts(objective) => objective,
            Self::OfSequences(objective, _) => objective,
        }
    }
}

/// Rejects a schedule that is invalid for the teacher's corrections, before their influences are measured.
fn check_schedule(arguments: &Arguments, all: &[usize]) -> anyhow::Result<()> {
    if let Some(tau) = arguments.threshold {
        check_threshold(tau)?;
    }
    if let Some(mean) = arguments.evaluations {
        check_budget(all, mean)?;
    }
    Ok(())
}

/// The schedule, and the influences that it is derived from.
fn schedule(
    arguments: &Arguments,
    teacher: &Teacher,
    all: &[usize],
    corpus: &Corpus,
    device: &Device,
) -> anyhow::Result<(IterationSchedule, Option<Influence>)> {
    let measure = || teacher.measure(corpus, arguments.calibration_tokens, device);
    let Arguments {
        threshold,
        evaluations,
        schedule,
        ..
    } = arguments;
    match (threshold, evaluations, schedule) {
        (Some(tau), ..) => {
            let measured = measure()?;
            Ok((by_threshold(&measured.influence, *tau)?, Some(measured)))
        }
        (_, Some(mean), _) => {
            let measured = measure()?;
            Ok((by_budget(&measured.influence, *mean)?, Some(measured)))
        }
        (.., Some(text)) => {
            let schedule = crate::corrections::schedule(text).context("--schedule")?;
            Ok((by_hand(all, schedule).context("--schedule")?, None))
        }
        _ => bail!("how many corrections to keep? give --threshold, --evaluations or --schedule"),
    }
}

/// The run to resume, its configuration and its teacher.
fn resumed(arguments: &Arguments, devices: &Devices) -> anyhow::Result<Ready> {
    let run = match &arguments.run {
        Some(run) => RunDirectory::existing(Some(run), "")?,
        None => RunDirectory::last()?,
    };
    let (path, _) = to_resume(&run);
    let config = RunConfig::load(&path, &arguments.set)?;
    ensure!(
        DistillSection::of(&config)?.is_some(),
        "{}: not a run of a student; resume it with: train --run {} --resume",
        run.path().display(),
        run.path().display()
    );
    Ok(Ready {
        objective: objective_of(&config, devices.first())?,
        run: ClaimedRun::of_ranks(devices.ranks(), || {
            ClaimedRun::existing(Some(run.path()), "")
        })?,
        influence: None,
        config,
        printed: Ok(()),
    })
}
