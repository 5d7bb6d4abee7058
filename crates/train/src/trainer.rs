//! The training loop.

mod initial;
mod report;
mod step;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::Device;
use iiet_data::{Batches, Prepared, prepare};
use iiet_model::{LanguageModel, ModelConfig, SaveOptions, TrainingMemory, save};

use self::initial::initial_model;
use crate::checkpoint;
use crate::evaluate::{Baselines, Evaluation, TextBytes, Validation};
use crate::metrics::MetricsLog;
use crate::optimizer::ModelAdamW;
use crate::progress::{DataProgress, StepProgress};
use crate::{LearningRate, RunConfig, RunDirectory, TrainError, curve, memory};

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
    // Before any text is read: the sizes are known but for the vocabulary of a given tokenizer.
    refuse_what_does_not_fit(config, config.data.vocab_size, options, device)?;
    let run = open_run(config, options)?;
    let prepared = prepare(&config.data, &DataProgress::default())?;
    refuse_what_does_not_fit(config, prepared.tokenizer.vocab_size(), options, device)?;
    let mut trainer = match options.resume {
        true => Trainer::resume(config, run, prepared, device)?,
        false => Trainer::start(config, run, prepared, device)?,
    };
    let result = trainer.run(options.interrupt);
    trainer.progress.finish();
    result
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
        memory::check_host(&TrainingMemory::of(&model, batch, seq))?;
    }
    Ok(())
}

fn open_run(config: &RunConfig, options: &RunOptions<'_>) -> Result<RunDirectory, TrainError> {
    let given = options.run.as_deref();
    if !options.resume {
        return RunDirectory::fresh(given, &options.name);
    }
    let run = RunDirectory::existing(given, &options.name)?;
    let before = RunConfig::load(&run.config(), &[])?;
    let mismatch =
        |key, before: String, now: String| Err(TrainError::ResumeMismatch { key, before, now });
    let (b, n) = (&before.train, &config.train);
    for (key, before, now) in [
        ("train.seed", b.seed, n.seed),
        ("train.batch", b.batch as u64, n.batch as u64),
        (
            "train.accumulation",
            b.accumulation as u64,
            n.accumulation as u64,
        ),
    ] {
        if before != now {
            return mismatch(key, before.to_string(), now.to_string());
        }
    }
    if before.model != config.model {
        let show = |config: &RunConfig| format!("{:?}", config.model);
        return mismatch("[model]", show(&before), show(config));
    }
    if before.data != config.data {
        let show = |config: &RunConfig| format!("{:?}", config.data);
        return mismatch("[data]", show(&before), show(config));
    }
    Ok(run)
}

struct Trainer<'a> {
    config: &'a RunConfig,
    run: RunDirectory,
    device: &'a Device,
    prepared: Prepared,
    batches: Batches,
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
    checkpoint: Option<PathBuf>,
}

impl<'a> Trainer<'a> {
    fn start(
        config: &'a RunConfig,
        run: RunDirectory,
        prepared: Prepared,
        device: &'a Device,
    ) -> Result<Self, TrainError> {
        let model_config = stage_config(config, &prepared, 0);
        let model = initial_model(&config.train, &model_config, &prepared.tokenizer, device)?;
        let optimizer = ModelAdamW::new(&config.train);
        run.write_config(config)?;
        Self::assemble(config, run, prepared, device, model, optimizer, (0, 0))
    }

    fn resume(
        config: &'a RunConfig,
        run: RunDirectory,
        prepared: Prepared,
        device: &'a Device,
    ) -> Result<Self, TrainError> {
        let (checkpoint, passed) = checkpoint::read_newest(&run, device)?;
        for reason in passed {
            eprintln!("passed over {reason}");
        }
        let at = checkpoint.position.step;
        eprintln!(
            "resuming from {}, after step {at}",
            checkpoint.path.display()
        );
        if at > config.train.steps {
            return Err(TrainError::Value {
                key: "train.steps",
                found: config.train.steps.to_string(),
                allowed: format!("allowed: at least {at}, where the run stands"),
            });
        }
        let vocab_size = prepared.tokenizer.vocab_size();
        if checkpoint.model.config().vocab_size != vocab_size {
            return Err(TrainError::ResumeMismatch {
                key: "the tokenizer's vocabulary",
                before: format!("{} tokens", checkpoint.model.config().vocab_size),
                now: format!("{vocab_size} tokens"),
            });
        }
        let mut optimizer = ModelAdamW::new(&config.train);
        optimizer.moments = checkpoint.moments;
        let position = (at, checkpoint.position.tokens);
        let model = checkpoint.model;
        let mut trainer =
            Self::assemble(config, run, prepared, device, model, optimizer, position)?;
        trainer.run.write_config(config)?;
        trainer.checkpoint = Some(checkpoint.path);
        Ok(trainer)
    }

    fn assemble(
        config: &'a RunConfig,
        run: RunDirectory,
        prepared: Prepared,
        device: &'a Device,
        model: LanguageModel,
        optimizer: ModelAdamW,
        (step, tokens): (u64, u64),
    ) -> Result<Self, TrainError> {
        let train = &config.train;
        let (batch, seq) = (train.batch, config.model.seq_len);
        let batches = Batches::new(prepared.train.clone(), batch, seq, train.seed)?;
        let text = TextBytes::new(&prepared);
        let validation = Validation::new(&prepared, &text, batch, seq, train.eval_tokens)?;
        let baselines = validation.baselines(&prepared.tokenizer)?;
        let log = MetricsLog::open(&run.metrics(), step)?;
        Ok(Self {
            config,
            device,
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
            checkpoint: None,
            run,
            prepared,
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
            let validate = at_end || due(train.eval_every);
            let sample = due(train.sample_every);
            let keep = at_end || due(train.checkpoint_every);
            if validate || due(train.log_every) || self.step == 1 {
                let rate = busy_tokens as f64 / busy.as_secs_f64();
                last = self.log_step(&update, rate, validate)?;
                (busy, busy_tokens) = (Duration::ZERO, 0);
            }
            if sample {
                self.sample()?;
            }
            if keep {
                self.write_checkpoint()?;
            }
        }
        let checkpoint = match self.checkpoint.take() {
            // The newest checkpoint may be older than an interrupt.
            Some(path) if self.step == train.steps => path,
            _ => self.write_checkpoint()?,
        };
        let mut validation = None;
        if self.step == train.steps {
            let model = self.model.valid();
            // A run that was complete when it was resumed has taken no step here.
            let evaluate = || self.validation.evaluate(&model, self.device);
            validation = Some(last.unwrap_or_else(evaluate));
            save(&model, &self.run.model(), &SaveOptions::default())?;
            checkpoint::save_tokenizer(&self.prepared.tokenizer, &self.run.model())?;
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
        let wanted = stage_config(self.config, &self.prepared, self.step);
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

    fn write_checkpoint(&mut self) -> Result<PathBuf, TrainError> {
        let path = checkpoint::write(
            &self.run,
            (self.step, self.tokens),
            &self.model.valid(),
            &self.optimizer,
            &self.prepared.tokenizer,
            self.config.train.keep,
        )?;
        self.checkpoint = Some(path.clone());
        Ok(path)
    }
}

/// The model's configuration for the update after `step`.
fn stage_config(config: &RunConfig, prepared: &Prepared, step: u64) -> ModelConfig {
    let starts = config.train.stage_starts();
    let stage = starts.iter().rposition(|start| *start <= step);
    let section = match stage {
        Some(i) => config.model.for_stage(&config.train.stages[i]),
        None => config.model.clone(),
    };
    let tokenizer = &prepared.tokenizer;
    section.config(tokenizer.vocab_size(), tokenizer.document_end())
}
