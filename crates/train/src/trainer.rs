//! The training loop.

mod draw;
#[cfg(test)]
mod equal_copies;
mod initial;
mod keep;
#[cfg(test)]
mod non_finite;
mod refuse;
mod report;
mod resume;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use iiet_data::{Corpus, Progress, TrainingBatches, prepare_corpus};
use iiet_model::{EncoderDecoder, LanguageModel, SavedModel};

use self::initial::initial_model;
use self::keep::LastCheckpoint;
use self::refuse::{refuse_precision, refuse_vocabulary, refuse_what_does_not_fit};
use crate::checkpoint::{self, Identity, Retention};
use crate::evaluate::{Baselines, Evaluation, TextBytes, Validation};
use crate::metrics::{KeptAside, MetricsLog};
use crate::optimizer::ModelOptimizer;
use crate::peak::matrix_product_peak;
use crate::ranks::{Told, agree_on_data};
use crate::run_directory::config_text;
use crate::step::{LossScale, Stepper, TrainState};
use crate::{
    ClaimedRun, Devices, Event, Observer, Ranks, RunConfig, RunDirectory, TrainError, TrainedModel,
    TrainingObjective, Vocabulary,
};

/// The inputs of a run in addition to its configuration.
pub struct RunOptions<'a> {
    /// The run directory, claimed for a new run or for resuming one.
    pub run: ClaimedRun,
    /// The revision of the program that is recorded in `config.toml`.
    pub revision: Option<String>,
    /// Whether parameters and activations are in host memory, which is then checked.
    pub on_host: bool,
    /// The objective.
    pub objective: &'a dyn TrainingObjective,
    /// Set by another thread to end the run with a checkpoint after the current step.
    pub interrupt: &'a AtomicBool,
    /// Receives the progress of data preparation.
    pub progress: &'a dyn Progress,
    /// Receives the events of the run.
    pub observer: &'a mut dyn Observer,
}

impl fmt::Debug for RunOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunOptions")
            .field("run", &self.run)
            .field("on_host", &self.on_host)
            .field("objective", &self.objective)
            .finish_non_exhaustive()
    }
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The run directory.
    pub run: RunDirectory,
    /// Total number of completed steps.
    pub step: u64,
    /// The configured number of steps; more than `steps` if the run was interrupted.
    pub steps: u64,
    /// Total number of tokens trained on.
    pub tokens: u64,
    /// Time that this process spent on training and validation.
    pub elapsed: Duration,
    /// The last loss on held-out text, if the run is complete; of the first process alone.
    pub validation: Option<Evaluation>,
    /// Baselines for it.
    pub baselines: Baselines,
    /// Number of held-out tokens that both were measured on.
    pub validation_tokens: u64,
    /// The newest checkpoint.
    pub checkpoint: PathBuf,
}

/// Trains the model of a configuration and writes a model directory.
///
/// # Errors
///
/// [`TrainError`]. A run that fails after its first checkpoint can be resumed from it.
pub fn train(
    config: &RunConfig,
    options: RunOptions<'_>,
    devices: &Devices,
) -> Result<Summary, TrainError> {
    config.validate()?;
    Told::agree(config, devices.ranks())?;
    devices.refuse_uneven(&config.train)?;
    refuse_precision(config.train.precision, devices)?;
    let config = &config.claimed_by(options.objective)?;
    match config.model.encoder {
        Some(_) => train_model::<EncoderDecoder>(config, options, devices),
        None => train_model::<LanguageModel>(config, options, devices),
    }
}

/// The same for a valid configuration of such a model.
fn train_model<M: TrainedModel>(
    config: &RunConfig,
    options: RunOptions<'_>,
    devices: &Devices,
) -> Result<Summary, TrainError> {
    // Before any text is read: only the vocabulary of a given tokenizer is unknown.
    let vocab_size = config.data.expected_vocab_size();
    refuse_what_does_not_fit::<M>(config, vocab_size, &options, devices)?;
    let found = match options.run.is_new() {
        true => None,
        false => resume::find(config, options.run.directory(), devices, options.observer)?,
    };
    let corpus = corpus(config, options.progress, devices.ranks())?;
    refuse_vocabulary(config, corpus.tokenizer.vocab_size())?;
    refuse_what_does_not_fit::<M>(config, corpus.tokenizer.vocab_size(), &options, devices)?;
    let plan = Plan {
        config,
        objective: options.objective,
        devices,
        revision: options.revision,
        observer: options.observer,
    };
    let mut trainer: Trainer<'_, M> = match found {
        Some(found) => Trainer::resume(plan, options.run, corpus, found)?,
        None => Trainer::start(plan, options.run, corpus)?,
    };
    trainer.run(options.interrupt)
}

/// The corpus, which the first process prepares and the others then find prepared.
fn corpus(
    config: &RunConfig,
    progress: &dyn Progress,
    ranks: &Ranks,
) -> Result<Corpus, TrainError> {
    let prepare = || Ok(prepare_corpus(&config.data, progress)?);
    let own = ranks.is_first().then(prepare).transpose();
    match ranks.all_succeeded(own)? {
        Some(corpus) => Ok(corpus),
        None => prepare(),
    }
}

/// The immutable parts of a run.
struct Plan<'a> {
    config: &'a RunConfig,
    objective: &'a dyn TrainingObjective,
    devices: &'a Devices,
    revision: Option<String>,
    observer: &'a mut dyn Observer,
}

struct Trainer<'a, M = LanguageModel> {
    config: &'a RunConfig,
    objective: &'a dyn TrainingObjective,
    config_text: String,
    run: RunDirectory,
    /// The first device.
    device: &'a Device,
    ranks: &'a Ranks,
    corpus: Corpus,
    identity: Identity,
    batches: TrainingBatches,
    text: TextBytes,
    validation: Validation,
    baselines: Baselines,
    /// Of the first process alone.
    log: Option<MetricsLog>,
    observer: &'a mut dyn Observer,
    stepper: Stepper<'a>,
    /// `None` only during a step.
    state: Option<TrainState<M>>,
    /// Peak FLOP/s for computing utilisation, summed over devices.
    peak: Option<f64>,
    checkpoint: Option<LastCheckpoint>,
    retention: Retention,
    /// Held as long as this process works on the run.
    _claim: ClaimedRun,
}

/// The data of a run.
struct Data {
    corpus: Corpus,
    batches: TrainingBatches,
    identity: Identity,
}

impl Data {
    fn new<M: TrainedModel>(config: &RunConfig, corpus: Corpus) -> Result<Self, TrainError> {
        let train = &config.train;
        let batches = corpus.training_batches(config.model.seq_len, train.size(), train.seed)?;
        let model = M::of_run(config, Vocabulary::of(&corpus.tokenizer), train.steps);
        Ok(Self {
            identity: Identity::of(&M::json(&model), &corpus, &batches),
            corpus,
            batches,
        })
    }
}

/// The initial or resumed state of a run.
struct Standing<M> {
    model: M,
    optimizer: ModelOptimizer,
    step: u64,
    tokens: u64,
    loss_scale: Option<LossScale>,
}

impl<'a, M: TrainedModel> Trainer<'a, M> {
    fn start(plan: Plan<'a>, run: ClaimedRun, corpus: Corpus) -> Result<Self, TrainError> {
        let (config, device) = (plan.config, plan.devices.first());
        let model_config = M::of_run(config, Vocabulary::of(&corpus.tokenizer), 0);
        let model = initial_model(&config.train, &model_config, &corpus.tokenizer, device)?;
        let optimizer = ModelOptimizer::new(&config.train);
        let standing = Standing {
            model,
            optimizer,
            step: 0,
            tokens: 0,
            loss_scale: LossScale::of(config.train.precision),
        };
        let data = Data::new::<M>(config, corpus)?;
        Self::assemble(plan, run, data, standing)
    }

    fn assemble(
        plan: Plan<'a>,
        claim: ClaimedRun,
        data: Data,
        standing: Standing<M>,
    ) -> Result<Self, TrainError> {
        let Plan {
            config,
            objective,
            devices,
            revision,
            observer,
        } = plan;
        let run = claim.directory().clone();
        let train = &config.train;
        let seq = config.model.seq_len;
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
        let validation = Validation::new(&held_out, &text, train.size(), seq, train.eval_tokens)?;
        let baselines = validation.baselines(&corpus.tokenizer)?;
        let ranks = devices.ranks();
        agree_on_data(&identity, step, ranks)?;
        // Written first: a directory with a configuration is a run, which can be resumed.
        let config_text = config_text(config, revision.as_deref());
        let opened = ranks.is_first().then(|| {
            run.write_config(&config_text)?;
            MetricsLog::open(&run.metrics(), step)
        });
        let log = ranks.all_succeeded(opened.transpose())?;
        let log = log.map(|(log, kept)| {
            if let Some(KeptAside { path, reason }) = &kept {
                observer.on(&Event::MetricsKeptAside { kept: path, reason });
            }
            log
        });
        let stepper = Stepper::new(objective, train, devices);
        let stepper = stepper.measuring_accuracy(corpus.task().is_some());
        let mut state = stepper.start(&model, optimizer);
        state.step = step;
        state.tokens = tokens;
        state.loss_scale = loss_scale;
        Ok(Self {
            config,
            objective,
            config_text,
            device: devices.first(),
            ranks,
            identity,
            batches,
            text,
            validation,
            baselines,
            log,
            observer,
            state: Some(state),
            stepper,
            peak: devices
                .all()
                .map(|device| matrix_product_peak(device, train.precision))
                .sum::<Option<f64>>()
                .map(|of_process| of_process * ranks.size() as f64),
            checkpoint: None,
            retention: Retention::default(),
            run,
            corpus,
            _claim: claim,
        })
    }

    fn run(&mut self, interrupt: &AtomicBool) -> Result<Summary, TrainError> {
        let train = &self.config.train;
        let started = Instant::now();
        self.announce();
        // Time and tokens since the last record, for the throughput.
        let (mut busy, mut busy_tokens) = (Duration::ZERO, 0);
        let mut last = None;
        while self.state().step() < train.steps && !self.interrupted(interrupt)? {
            self.enter_stage()?;
            let begun = Instant::now();
            let (figures, bits_per_byte) = self.take_step()?;
            busy += begun.elapsed();
            busy_tokens += figures.tokens;
            let step = self.state().step();
            self.observer.on(&Event::Step { step });

            let due = |every: u64| every > 0 && step.is_multiple_of(every);
            let at_end = step == train.steps;
            let sample = due(train.sample_every);
            let keep = at_end || due(train.checkpoint_every);
            // The best checkpoint is known only if every checkpoint is evaluated.
            let validate = at_end || keep || due(train.eval_every);
            let mut evaluation = None;
            let logged = validate || due(train.log_every) || step == 1;
            if logged && self.ranks.is_first() {
                let rate = busy_tokens as f64 / busy.as_secs_f64().max(f64::MIN_POSITIVE);
                evaluation = self.log_step(&figures, bits_per_byte, rate, validate)?;
                (busy, busy_tokens) = (Duration::ZERO, 0);
            }
            if sample && self.ranks.is_first() {
                self.sample()?;
            }
            if keep {
                self.write_checkpoint(evaluation.as_ref())?;
            }
            last = evaluation;
        }
        let (step, tokens) = (self.state().step(), self.state().tokens());
        let checkpoint = match &self.checkpoint {
            Some(last) if last.step == step => last.path.clone(),
            // The newest checkpoint may be older than an interrupt.
            _ => self.write_checkpoint(None)?,
        };
        let mut validation = None;
        if step == train.steps && self.ranks.is_first() {
            let model = self.state().valid();
            // A run that was complete when it was resumed has no last step here.
            validation = Some(match last {
                Some(evaluation) => evaluation,
                None => self.evaluate()?,
            });
            let task = self.corpus.task();
            checkpoint::export(&self.run, &model, &self.corpus.tokenizer, task)?;
        }
        if let Some(log) = &self.log {
            let records = &log.records;
            self.observer.on(&Event::Ended { records });
        }
        Ok(Summary {
            run: self.run.clone(),
            step,
            steps: train.steps,
            tokens,
            elapsed: started.elapsed(),
            validation,
            baselines: self.baselines,
            validation_tokens: self.validation.tokens(),
            checkpoint,
        })
    }

    /// Whether a process is to end after this step: then all do.
    fn interrupted(&self, interrupt: &AtomicBool) -> Result<bool, TrainError> {
        let own = interrupt.load(Ordering::Relaxed);
        Ok(match self.ranks.size() {
            1 => own,
            _ => self.ranks.sums(&[f64::from(u8::from(own))])?[0] > 0.0,
        })
    }

    /// Switches the solver at the start of a stage.
    fn enter_stage(&mut self) -> Result<(), TrainError> {
        let step = self.state().step();
        let vocabulary = Vocabulary::of(&self.corpus.tokenizer);
        let wanted: <M as SavedModel>::Config = M::of_run(self.config, vocabulary, step);
        // Compared in serialised form, in which `3` and `[3, 3]` are the same schedule.
        if M::json(&wanted) == M::json(&self.state().model().current()) {
            return Ok(());
        }
        self.observer.on(&Event::Stage {
            step,
            solver: &M::solver_name(&wanted),
        });
        let state = self.take_state();
        let seed = self.config.train.seed;
        self.state = Some(self.stepper.with_solver(state, &wanted, seed)?);
        Ok(())
    }

    fn state(&self) -> &TrainState<M> {
        let state = self.state.as_ref();
        state.expect("invariant: the state is always put back")
    }

    fn take_state(&mut self) -> TrainState<M> {
        let state = self.state.take();
        state.expect("invariant: the state is always put back")
    }
}
