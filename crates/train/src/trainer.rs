//! The training loop.

#[cfg(test)]
mod equal_replicas;
mod initial;
mod keep;
#[cfg(test)]
mod non_finite;
mod refuse;
mod replicas;
mod report;
mod resume;
mod step;

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::Device;
use iiet_data::{Corpus, MixedBatches, prepare_corpus};
use iiet_model::{LanguageModel, ModelConfig};
use iiet_ode::Options;

use self::initial::initial_model;
use self::keep::LastCheckpoint;
use self::refuse::{refuse_another_objective, refuse_precision, refuse_what_does_not_fit};
use self::replicas::Replicas;
use crate::checkpoint::{self, Identity};
use crate::evaluate::{Baselines, Evaluation, TextBytes, Validation};
use crate::loss_scale::LossScale;
use crate::metrics::MetricsLog;
use crate::optimizer::ModelAdamW;
use crate::peak::matrix_product_peak;
use crate::progress::{DataProgress, StepProgress};
use crate::run_directory::config_text;
use crate::{Devices, LearningRate, RunConfig, RunDirectory, TrainError, TrainingObjective, curve};

/// What a run is told besides its configuration.
#[derive(Debug)]
pub struct RunOptions<'a> {
    /// Its directory; by default the next free `runs/NAME`, or the last one to resume.
    pub run: Option<PathBuf>,
    /// NAME.
    pub name: String,
    /// Whether to go on from the newest checkpoint.
    pub resume: bool,
    /// Whether parameters and activations live in this machine's memory, which is then checked.
    pub on_host: bool,
    /// What is minimised.
    pub objective: &'a dyn TrainingObjective,
    /// Set from outside to end the run with a checkpoint after the current step.
    pub interrupt: &'a AtomicBool,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Where everything lies.
    pub run: RunDirectory,
    /// Steps taken in all.
    pub step: u64,
    /// Steps asked for; more than taken if the run was interrupted.
    pub steps: u64,
    /// Tokens trained on in all.
    pub tokens: u64,
    /// Time this process spent training and validating.
    pub elapsed: Duration,
    /// The last loss on held-out text, if the run came to an end.
    pub validation: Option<Evaluation>,
    /// What to compare it with.
    pub baselines: Baselines,
    /// Tokens of held-out text that both were measured on.
    pub validation_tokens: u64,
    /// The newest checkpoint.
    pub checkpoint: PathBuf,
}

/// Runs a configuration from text to a model directory.
///
/// # Errors
///
/// [`TrainError`]. A run that fails after its first checkpoint can be resumed from it.
pub fn train(
    config: &RunConfig,
    options: &RunOptions<'_>,
    devices: &Devices,
) -> Result<Summary, TrainError> {
    config.validate()?;
    devices.refuse_uneven(&config.train)?;
    refuse_precision(config.train.precision, devices)?;
    refuse_another_objective(config, options.objective)?;
    // Before any text is read: the sizes are known but for the vocabulary of a given tokenizer.
    refuse_what_does_not_fit(config, config.data.vocab_size, options, devices)?;
    let given = options.run.as_deref();
    let (run, found) = match options.resume {
        true => {
            let run = RunDirectory::existing(given, &options.name)?;
            let lock = run.lock()?;
            let found = resume::find(config, &run, devices.first())?;
            (run, Some((found, lock)))
        }
        false => (RunDirectory::fresh(given, &options.name)?, None),
    };
    let corpus = prepare_corpus(&config.data, &DataProgress::default())?;
    refuse_what_does_not_fit(config, corpus.tokenizer.vocab_size(), options, devices)?;
    let plan = Plan {
        config,
        objective: options.objective,
        devices,
    };
    let mut trainer = match found {
        Some((Some(found), lock)) => Trainer::resume(plan, run, lock, corpus, found)?,
        Some((None, lock)) => Trainer::start(plan, run, lock, corpus)?,
        None => {
            // Only now, so that a corpus that cannot be had leaves no run behind.
            let lock = run.lock()?;
            Trainer::start(plan, run, lock, corpus)?
        }
    };
    let result = trainer.run(options.interrupt);
    trainer.progress.finish();
    result
}

/// What a run is to do, and where.
#[derive(Clone, Copy)]
struct Plan<'a> {
    config: &'a RunConfig,
    objective: &'a dyn TrainingObjective,
    devices: &'a Devices,
}

struct Trainer<'a> {
    config: &'a RunConfig,
    objective: &'a dyn TrainingObjective,
    config_text: String,
    run: RunDirectory,
    /// The first one.
    device: &'a Device,
    corpus: Corpus,
    identity: Identity,
    batches: MixedBatches,
    text: TextBytes,
    validation: Validation,
    baselines: Baselines,
    schedule: LearningRate,
    log: MetricsLog,
    progress: StepProgress,
    replicas: Replicas<'a>,
    step: u64,
    tokens: u64,
    /// Of the next step, where the precision needs one.
    loss_scale: Option<LossScale>,
    /// FLOP/s that utilisation is a share of, of all devices together.
    peak: Option<f64>,
    checkpoint: Option<LastCheckpoint>,
    /// Held as long as this process works on the run.
    _lock: File,
}

/// What a run is trained on.
struct Data {
    corpus: Corpus,
    batches: MixedBatches,
    identity: Identity,
}

impl Data {
    fn new(config: &RunConfig, corpus: Corpus) -> Result<Self, TrainError> {
        let train = &config.train;
        let (batch, seq) = (train.batch, config.model.seq_len);
        let batches = MixedBatches::new(&corpus.train(), batch, seq, train.seed)?;
        let model = stage_config(config, &corpus, train.steps);
        Ok(Self {
            identity: Identity::of(&model, &corpus, &batches),
            corpus,
            batches,
        })
    }
}

/// Where a run begins or goes on.
struct Standing {
    model: LanguageModel,
    optimizer: ModelAdamW,
    step: u64,
    tokens: u64,
    loss_scale: Option<LossScale>,
}

impl<'a> Trainer<'a> {
    fn start(
        plan: Plan<'a>,
        run: RunDirectory,
        lock: File,
        corpus: Corpus,
    ) -> Result<Self, TrainError> {
        let (config, device) = (plan.config, plan.devices.first());
        let model_config = stage_config(config, &corpus, 0);
        let model = initial_model(&config.train, &model_config, &corpus.tokenizer, device)?;
        let optimizer = ModelAdamW::new(&config.train);
        let standing = Standing {
            model,
            optimizer,
            step: 0,
            tokens: 0,
            loss_scale: LossScale::of(config.train.precision),
        };
        let data = Data::new(config, corpus)?;
        let trainer = Self::assemble(plan, run, lock, data, standing)?;
        trainer.run.write_config(&trainer.config_text)?;
        Ok(trainer)
    }

    fn assemble(
        plan: Plan<'a>,
        run: RunDirectory,
        lock: File,
        data: Data,
        standing: Standing,
    ) -> Result<Self, TrainError> {
        let Plan {
            config,
            objective,
            devices,
        } = plan;
        let train = &config.train;
        let (batch, seq) = (train.batch, config.model.seq_len);
        let Data {
            corpus,
            batches,
            identity,
        } = data;
        let Standing {
            model,
            optimizer,
            step,
            tokens,
            loss_scale,
        } = standing;
        let text = TextBytes::new(&corpus);
        let held_out = corpus.held_out();
        let validation = Validation::new(&held_out, &text, batch, seq, train.eval_tokens)?;
        let baselines = validation.baselines(&corpus.tokenizer)?;
        let log = MetricsLog::open(&run.metrics(), step)?;
        Ok(Self {
            config,
            objective,
            config_text: config_text(config),
            device: devices.first(),
            identity,
            batches,
            text,
            validation,
            baselines,
            schedule: LearningRate::new(train),
            log,
            progress: StepProgress::new(step, train.steps),
            replicas: Replicas::new(&model, optimizer, objective, devices),
            step,
            tokens,
            loss_scale,
            peak: devices
                .all()
                .map(|device| matrix_product_peak(device, train.precision))
                .sum(),
            checkpoint: None,
            run,
            corpus,
            _lock: lock,
        })
    }

    fn run(&mut self, interrupt: &AtomicBool) -> Result<Summary, TrainError> {
        let train = &self.config.train;
        let started = Instant::now();
        self.announce();
        // Time and tokens since the last record, for the rate.
        let (mut busy, mut busy_tokens) = (Duration::ZERO, 0);
        let mut last = None;
        while self.step < train.steps && !interrupt.load(Ordering::Relaxed) {
            self.enter_stage()?;
            let (begun, tokens_before) = (Instant::now(), self.tokens);
            let update = self.take_step()?;
            busy += begun.elapsed();
            busy_tokens += self.tokens - tokens_before;
            self.progress.step();

            let due = |every: u64| every > 0 && self.step.is_multiple_of(every);
            let at_end = self.step == train.steps;
            let sample = due(train.sample_every);
            let keep = at_end || due(train.checkpoint_every);
            // The best checkpoint is known only if every checkpoint is measured.
            let validate = at_end || keep || due(train.eval_every);
            let mut evaluation = None;
            if validate || due(train.log_every) || self.step == 1 {
                let rate = busy_tokens as f64 / busy.as_secs_f64();
                evaluation = self.log_step(&update, rate, validate)?;
                (busy, busy_tokens) = (Duration::ZERO, 0);
            }
            if sample {
                self.sample()?;
            }
            if keep {
                self.write_checkpoint(evaluation.as_ref())?;
            }
            last = evaluation;
        }
        let checkpoint = match &self.checkpoint {
            Some(last) if last.step == self.step => last.path.clone(),
            // The newest checkpoint may be older than an interrupt.
            _ => self.write_checkpoint(None)?,
        };
        let mut validation = None;
        if self.step == train.steps {
            let model = self.replicas.first.model.valid();
            // A run that was complete when it was resumed has taken no step here.
            validation = Some(last.unwrap_or_else(|| self.evaluate()));
            checkpoint::export(&self.run, &model, &self.corpus.tokenizer)?;
        }
        curve::draw(
            &self.run.curve(),
            &self.log.records,
            self.baselines.unigram_loss,
        )?;
        Ok(Summary {
            run: self.run.clone(),
            step: self.step,
            steps: train.steps,
            tokens: self.tokens,
            elapsed: started.elapsed(),
            validation,
            baselines: self.baselines,
            validation_tokens: self.validation.tokens(),
            checkpoint,
        })
    }

    /// Switches the solver where a stage begins.
    fn enter_stage(&mut self) -> Result<(), TrainError> {
        let wanted = stage_config(self.config, &self.corpus, self.step);
        // Compared as they are written: there `3` and `[3, 3]` are the same schedule.
        if wanted.to_json() == self.replicas.first.model.config().to_json() {
            return Ok(());
        }
        let solver = wanted.solver.name();
        self.progress
            .say(&format!("step {}: switching to {solver}", self.step));
        self.replicas.switch(&wanted, self.config.train.seed)
    }
}

/// The model's configuration for the update after `step`.
fn stage_config(config: &RunConfig, corpus: &Corpus, step: u64) -> ModelConfig {
    let section = match config.train.stage_at(step) {
        Some(i) => {
            let solver = config.train.stages[i].solver(&config.model.solver);
            let solver = solver.expect("invariant: a configuration is validated before it is run");
            config.model.with_solver(solver)
        }
        None => config.model.clone(),
    };
    let tokenizer = &corpus.tokenizer;
    section.config(tokenizer.vocab_size(), tokenizer.document_end())
}
