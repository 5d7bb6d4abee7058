//! The training loop.

mod initial;
#[cfg(test)]
mod non_finite;
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
use iiet_kernels::on_workers;
use iiet_model::{Cost, LanguageModel, ModelConfig, Precision, TrainingMemory};

use self::initial::initial_model;
use crate::checkpoint::{self, Contents, Identity, State};
use crate::evaluate::{Baselines, Evaluation, TextBytes, Validation};
use crate::loss_scale::LossScale;
use crate::metrics::MetricsLog;
use crate::optimizer::ModelAdamW;
use crate::peak::matrix_product_peak;
use crate::progress::{DataProgress, StepProgress};
use crate::run_directory::config_text;
use crate::{
    DistillSection, LearningRate, Recompute, RunConfig, RunDirectory, TrainError,
    TrainingObjective, curve, memory,
};

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
    device: &Device,
) -> Result<Summary, TrainError> {
    config.validate()?;
    refuse_precision(config.train.precision, device)?;
    refuse_another_objective(config, options.objective)?;
    // Before any text is read: the sizes are known but for the vocabulary of a given tokenizer.
    refuse_what_does_not_fit(config, config.data.vocab_size, options, device)?;
    let given = options.run.as_deref();
    let (run, found) = match options.resume {
        true => {
            let run = RunDirectory::existing(given, &options.name)?;
            let lock = run.lock()?;
            let found = resume::find(config, &run, device)?;
            (run, Some((found, lock)))
        }
        false => (RunDirectory::fresh(given, &options.name)?, None),
    };
    let corpus = prepare_corpus(&config.data, &DataProgress::default())?;
    refuse_what_does_not_fit(config, corpus.tokenizer.vocab_size(), options, device)?;
    let plan = Plan {
        config,
        objective: options.objective,
        device,
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

/// A configuration with a teacher needs the objective that has it, and no other has.
fn refuse_another_objective(
    config: &RunConfig,
    objective: &dyn TrainingObjective,
) -> Result<(), TrainError> {
    let name = |section: Option<&DistillSection>| match section {
        Some(section) => format!("{section:?}"),
        None => "not there".to_owned(),
    };
    match objective.section() == config.distill.as_ref() {
        true => Ok(()),
        false => Err(TrainError::Value {
            key: "distill",
            found: name(config.distill.as_ref()),
            allowed: format!("the objective's is {}", name(objective.section())),
        }),
    }
}

fn refuse_precision(precision: Precision, device: &Device) -> Result<(), TrainError> {
    let works = |precision: &Precision| precision.works_on(device);
    let allowed: Vec<&str> = Precision::ALL
        .into_iter()
        .filter(works)
        .map(Precision::name)
        .collect();
    match works(&precision) {
        true => Ok(()),
        false => Err(TrainError::Value {
            key: "train.precision",
            found: precision.to_string(),
            allowed: format!("the device computes with: {}", allowed.join(", ")),
        }),
    }
}

fn refuse_what_does_not_fit(
    config: &RunConfig,
    vocab_size: usize,
    options: &RunOptions<'_>,
    device: &Device,
) -> Result<(), TrainError> {
    if options.on_host {
        // The final solver is the most expensive one, or the stages would be pointless.
        let model = LanguageModel::empty(&config.model.config(vocab_size, None), device)?;
        let (batch, seq) = (config.train.batch, config.model.seq_len);
        let mut memory = match config.train.recompute {
            Recompute::None => TrainingMemory::of(&model, batch, seq),
            Recompute::Layer => TrainingMemory::of_one_layer(&model, batch, seq),
        };
        memory.parameters += options.objective.footprint().bytes;
        if config.train.precision != Precision::F32 {
            // The rounded copy. Activations are taken to be f32: most operations pass through it.
            memory.parameters +=
                Cost::of(&model).parameters * config.train.precision.bytes() as u64;
        }
        memory::check_host(&memory)?;
    }
    Ok(())
}

/// What a run is to do, and where.
#[derive(Clone, Copy)]
struct Plan<'a> {
    config: &'a RunConfig,
    objective: &'a dyn TrainingObjective,
    device: &'a Device,
}

struct Trainer<'a> {
    config: &'a RunConfig,
    objective: &'a dyn TrainingObjective,
    config_text: String,
    run: RunDirectory,
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
    model: LanguageModel,
    optimizer: ModelAdamW,
    step: u64,
    tokens: u64,
    /// Of the next step, where the precision needs one.
    loss_scale: Option<LossScale>,
    /// FLOP/s that utilisation is a share of.
    peak: Option<f64>,
    checkpoint: Option<LastCheckpoint>,
    /// Held as long as this process works on the run.
    _lock: File,
}

/// The newest checkpoint and the step it stands after.
struct LastCheckpoint {
    step: u64,
    path: PathBuf,
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
        let Plan { config, device, .. } = plan;
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
            device,
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
            device,
            identity,
            batches,
            text,
            validation,
            baselines,
            schedule: LearningRate::new(train),
            log,
            progress: StepProgress::new(step, train.steps),
            model: model.train(),
            optimizer,
            step,
            tokens,
            loss_scale,
            peak: matrix_product_peak(device),
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
            // A step is thousands of parallel loops.
            let update = on_workers(|| self.take_step())?;
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
            // A run that was complete when it was resumed has taken no step here.
            validation = Some(last.unwrap_or_else(|| self.evaluate()));
            checkpoint::export(&self.run, &self.model.valid(), &self.corpus.tokenizer)?;
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
        // Compared as they are written: there `3` and `[3, 3]` are the same schedule, and options
        // that the solver does not read are left out.
        if wanted.to_json() == self.model.config().to_json() {
            return Ok(());
        }
        let solver = wanted.solver.name;
        self.progress
            .say(&format!("step {}: switching to {solver:?}", self.step));
        let model = self.model.valid();
        self.model = model
            .with_config(&wanted, self.config.train.seed, self.device)?
            .train();
        Ok(())
    }

    fn write_checkpoint(&mut self, evaluation: Option<&Evaluation>) -> Result<PathBuf, TrainError> {
        if let Some(Evaluation { loss, .. }) = evaluation
            && !loss.is_finite()
        {
            return Err(self.broken(format!("the validation loss is {loss}")));
        }
        let mut state = State::after(
            self.step,
            self.tokens,
            self.config,
            &self.batches,
            &self.identity,
        );
        state.validation_loss = evaluation.map(|evaluation| evaluation.loss);
        state.loss_scale = self.loss_scale;
        let contents = Contents {
            state,
            model: &self.model.valid(),
            optimizer: &self.optimizer,
            tokenizer: &self.corpus.tokenizer,
            config: &self.config_text,
        };
        let path =
            checkpoint::write(&self.run, contents, self.config.train.keep).map_err(|error| {
                match checkpoint::not_finite(&error) {
                    Some(name) => self.broken(format!("{name} holds a value that is not finite")),
                    None => error,
                }
            })?;
        self.checkpoint = Some(LastCheckpoint {
            step: self.step,
            path: path.clone(),
        });
        Ok(path)
    }

    fn broken(&self, what: String) -> TrainError {
        TrainError::Broken {
            step: self.step,
            what,
            checkpoint: self.last_checkpoint(),
        }
    }

    /// Where the last good state is, as a sentence.
    fn last_checkpoint(&self) -> String {
        match &self.checkpoint {
            Some(last) => format!("The last checkpoint is {}.", last.path.display()),
            None => "There is no checkpoint yet.".to_owned(),
        }
    }
}

/// The model's configuration for the update after `step`.
fn stage_config(config: &RunConfig, corpus: &Corpus, step: u64) -> ModelConfig {
    let section = match config.train.stage_at(step) {
        Some(i) => config.model.for_stage(&config.train.stages[i]),
        None => config.model.clone(),
    };
    let tokenizer = &corpus.tokenizer;
    section.config(tokenizer.vocab_size(), tokenizer.document_end())
}
