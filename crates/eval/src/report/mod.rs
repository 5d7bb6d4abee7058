//! The report on models: what each costs, how fast it is, how good it is, and what it retains of the
//! first, the reference.
//!
//! For a student of distillation the reference is its teacher. Costs follow from sizes and solver
//! (`cost.rs`), speeds are measured in turns (`speed.rs`), quality comes from tasks that every model is
//! asked alike, so that differences and retention have the standard errors of paired items
//! (`quality.rs`, `estimate.rs`). Everything but the speeds is the same whenever it is computed.

mod cost;
#[cfg(test)]
mod example;
mod labels;
mod machine;
mod quality;
mod speed;
mod table;

use std::io::Write;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use iiet_files::write_file;
use iiet_model::{
    Cost, LanguageModel, ModelConfig, available_memory, model_hash, quantisation, weight_bytes,
};
use iiet_ode::Options;
use iiet_text::TextTokenizer;
use serde::Serialize;

pub use cost::TokenCost;
pub use machine::Machine;
pub use quality::{Quality, TaskQuality};
pub use speed::{Round, Speed, Workload};
pub use table::table;

pub use crate::estimate::Estimate;

use crate::error::EvalError;
use crate::evaluation::{Evaluated, LeftOut, Prepared, Settings, prepare};
use crate::model::ModelScorer;
use crate::scorer::Progress;
use crate::tasks::task;
use crate::token_scorer::TokenScorer;

/// The tasks of a report unless others are asked for: those that need no data set.
pub const REPORT_TASKS: [&str; 3] = ["heldout_bpb", "heldout_cloze", "heldout_choice"];

/// What models are compared on.
#[derive(Clone, Debug)]
pub struct ReportSettings {
    /// Names of tasks. The first that is about whole texts gives the bits per byte, all that have an
    /// accuracy the mean accuracy.
    pub tasks: Vec<String>,
    /// Where their data comes from, and how much of it is used.
    pub evaluation: Settings,
    /// Whether the device's memory is the machine's own: then all models must fit into what is free.
    pub host_memory: bool,
}

impl Default for ReportSettings {
    /// [`REPORT_TASKS`] on a device with the machine's memory.
    fn default() -> Self {
        Self {
            tasks: REPORT_TASKS.map(str::to_owned).to_vec(),
            evaluation: Settings::default(),
            host_memory: true,
        }
    }
}

/// What a report measures next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Measuring<'a> {
    /// Decoding and prefill of all models.
    Speeds,
    /// The answers of one model to one task.
    Task {
        /// The model's label in the report.
        model: &'a str,
        /// The task's name.
        task: &'a str,
        /// Number of items.
        items: usize,
    },
}

/// Models beside each other.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The first is the reference.
    pub models: Vec<ModelReport>,
    /// The tasks.
    pub tasks: Vec<AskedTask>,
    /// What the speeds are measured on.
    pub workload: Workload,
    /// Where they were measured.
    pub machine: Machine,
    /// What a reader should know before comparing.
    pub notes: Vec<String>,
    /// Of this crate.
    pub version: &'static str,
}

/// A task as it was asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AskedTask {
    /// Its name.
    pub name: &'static str,
    /// The version of its definition.
    pub version: f64,
    /// Documents of its data.
    pub documents: usize,
    /// Documents asked about.
    pub used: usize,
    /// Worked examples in each prompt.
    pub num_fewshot: usize,
    /// The part of the data set, where it has any.
    pub split: Option<String>,
    /// Where the documents are from.
    pub place: String,
    /// What identifies the items, [`Prepared::hash`].
    pub items_hash: String,
}

/// A model's part of a report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelReport {
    /// The shortest end of its path that no other model has.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
    /// [`model_hash`] of the directory.
    pub model_hash: String,
    /// Its solver, as the configuration names it.
    pub solver: &'static str,
    /// Corrections of each layer, for a solver that takes any.
    pub iterations: Option<Vec<usize>>,
    /// Layers.
    pub layers: usize,
    /// The width of its states.
    pub d_model: usize,
    /// The width of its feed-forward layers.
    pub d_ff: usize,
    /// Tokens.
    pub context: usize,
    /// Tokens of its vocabulary.
    pub vocab_size: usize,
    /// What a token costs.
    pub cost: TokenCost,
    /// Tokens per second.
    pub speed: Speed,
    /// What it knows.
    pub quality: Quality,
}

/// A model whose directory has been looked into.
struct Candidate<'a> {
    path: &'a Path,
    config: ModelConfig,
    tokenizer: TextTokenizer,
    cost: Cost,
    /// Bytes of the weight files.
    weight_bytes: u64,
    /// Whether matrices of 8 or 4 bits are among them, which stay so in memory.
    packed: bool,
}

/// Compares models; the first is the reference.
///
/// Mistakes are found before the work: directories, tokenizers, tasks and their data are looked at
/// first. All models are in memory at once, for their speeds are measured in turns. `progress` is called
/// before each measurement; what it returns is told of a task's tokens, and dropped after the
/// measurement.
///
/// # Errors
/// [`EvalError::Nothing`] without models or tasks, [`EvalError::Twice`] for a task named twice,
/// [`EvalError::Memory`] if the models do not fit, [`EvalError::Context`] for a model without room to
/// decode in, and errors of models, tokenizers and data.
pub fn report(
    models: &[PathBuf],
    settings: &ReportSettings,
    device: &Device,
    progress: &dyn Fn(Measuring<'_>) -> Box<dyn Progress>,
) -> Result<Report, EvalError> {
    let candidates = models
        .iter()
        .map(|path| Candidate::open(path, device))
        .collect::<Result<Vec<_>, _>>()?;
    let Some(reference) = candidates.first() else {
        return Err(EvalError::Nothing { of: "model" });
    };
    let reference = (reference.cost.clone(), reference.weight_bytes);
    let workload = workload(&candidates)?;
    let tasks = prepare_all(settings)?;
    if settings.host_memory {
        check_memory(&candidates)?;
    }
    let mut notes = notes(&candidates, settings);

    let mut scorers = Vec::new();
    let mut costs = Vec::new();
    for candidate in candidates {
        let (model, _) = iiet_model::load(candidate.path, device)?;
        let model = ModelScorer::new(model, device.clone());
        scorers.push(TokenScorer::new(model, candidate.tokenizer));
        costs.push((candidate.cost, candidate.weight_bytes));
    }
    let language_models: Vec<&LanguageModel> = scorers
        .iter()
        .map(|scorer| scorer.model().language_model())
        .collect();
    let measuring = progress(Measuring::Speeds);
    let speeds = workload.measure(&language_models, device)?;
    drop(measuring);
    let names = labels::labels(models);
    let mut answers = scorers
        .iter()
        .zip(&names)
        .map(|(scorer, name)| answers(scorer, name, &tasks, progress))
        .collect::<Result<Vec<_>, _>>()?;
    notes.extend(leave_out(&tasks, &mut answers)?);

    let mut reports = Vec::new();
    for (at, (speed, name)) in speeds.into_iter().zip(names).enumerate() {
        let config = language_models[at].config();
        let schedule = config.solver.iterations();
        reports.push(ModelReport {
            name,
            path: models[at].clone(),
            model_hash: model_hash(&models[at])?,
            solver: config.solver.name(),
            iterations: schedule.map(|schedule| schedule.per_layer(config.n_layers)),
            layers: config.n_layers,
            d_model: config.d_model,
            d_ff: config.block.d_ff,
            context: config.seq_len,
            vocab_size: config.vocab_size,
            cost: TokenCost::new(&costs[at], &reference),
            speed,
            quality: Quality::new(&tasks, &answers[at], &answers[0]),
        });
    }
    Ok(Report {
        models: reports,
        tasks: tasks.iter().map(AskedTask::new).collect(),
        workload,
        machine: Machine::this(),
        notes,
        version: env!("CARGO_PKG_VERSION"),
    })
}

impl<'a> Candidate<'a> {
    fn open(path: &'a Path, device: &Device) -> Result<Self, EvalError> {
        let config = iiet_model::load_config(path)?;
        let tokenizer = TextTokenizer::open(path, config.vocab_size)?;
        let empty: LanguageModel = LanguageModel::empty(&config, device)?;
        let cost = Cost::of(&empty);
        Ok(Self {
            path,
            config,
            tokenizer,
            cost,
            weight_bytes: weight_bytes(path)?,
            packed: quantisation(path)?.is_some(),
        })
    }
}

impl AskedTask {
    fn new(prepared: &Prepared) -> Self {
        Self {
            name: prepared.task.name,
            version: prepared.task.version,
            documents: prepared.original,
            used: prepared.documents.len(),
            num_fewshot: prepared.num_fewshot,
            split: prepared.split.map(|split| split.to_string()),
            place: prepared.place.clone(),
            items_hash: prepared.hash.clone(),
        }
    }
}

/// A text that fits the smallest context.
fn workload(candidates: &[Candidate<'_>]) -> Result<Workload, EvalError> {
    let smallest = candidates.iter().min_by_key(|model| model.config.seq_len);
    let smallest = smallest.ok_or(EvalError::Nothing { of: "model" })?;
    let context = smallest.config.seq_len;
    Workload::within(context).ok_or_else(|| EvalError::Context {
        model: smallest.path.to_owned(),
        context,
    })
}

fn prepare_all(settings: &ReportSettings) -> Result<Vec<Prepared>, EvalError> {
    let names = &settings.tasks;
    if names.is_empty() {
        return Err(EvalError::Nothing { of: "task" });
    }
    let twice = (1..names.len()).find(|at| names[..*at].contains(&names[*at]));
    if let Some(at) = twice {
        let name = names[at].clone();
        return Err(EvalError::Twice { name });
    }
    // All names first: data may have to be made.
    let tasks: Result<Vec<_>, _> = names.iter().map(|name| task(name)).collect();
    let tasks = tasks?.into_iter();
    tasks
        .map(|task| prepare(task, &settings.evaluation))
        .collect()
}

/// Weights in f32, and keys and values for a full context.
fn check_memory(candidates: &[Candidate<'_>]) -> Result<(), EvalError> {
    let needed = candidates.iter().map(|candidate| {
        let context = candidate.config.seq_len as u64;
        let cache = candidate.cost.cache_bytes_per_token.saturating_mul(context);
        let weights = match candidate.packed {
            true => candidate.weight_bytes,
            false => size_of::<f32>() as u64 * candidate.cost.parameters,
        };
        cache.saturating_add(weights)
    });
    let (needed, available) = (needed.fold(0, u64::saturating_add), available_memory());
    match needed <= available {
        true => Ok(()),
        false => Err(EvalError::Memory {
            models: candidates.len(),
            needed,
            available,
        }),
    }
}

/// One model's answers to all tasks.
fn answers(
    scorer: &TokenScorer<ModelScorer>,
    name: &str,
    tasks: &[Prepared],
    progress: &dyn Fn(Measuring<'_>) -> Box<dyn Progress>,
) -> Result<Vec<Evaluated>, EvalError> {
    let ask = |prepared: &Prepared| {
        let task = prepared.task.name;
        let tokens = progress(Measuring::Task {
            model: name,
            task,
            items: prepared.items.len(),
        });
        let evaluated = prepared.evaluate(scorer, &*tokens);
        evaluated.map_err(|source| EvalError::Asking {
            model: name.to_owned(),
            task,
            source: Box::new(source),
        })
    };
    tasks.iter().map(ask).collect()
}

/// Leaves out of all models the items that one of them cannot answer, and says so.
fn leave_out(tasks: &[Prepared], answers: &mut [Vec<Evaluated>]) -> Result<Vec<String>, EvalError> {
    let mut notes = Vec::new();
    for (at, prepared) in tasks.iter().enumerate() {
        let left_out = answers.iter().flat_map(|model| model[at].left_out.clone());
        let left_out: Vec<LeftOut> = left_out.collect();
        let Some(first) = left_out.first() else {
            continue;
        };
        for model in &mut *answers {
            model[at] = prepared.without(&model[at], &left_out)?;
        }
        let count = answers.first().map_or(0, |model| model[at].left_out.len());
        notes.push(format!(
            "{}: {count} of {} items are left out, because a model cannot answer them; item {}: {}",
            prepared.task.name,
            prepared.items.len(),
            first.item,
            first.reason
        ));
    }
    Ok(notes)
}

fn notes(candidates: &[Candidate<'_>], settings: &ReportSettings) -> Vec<String> {
    let differ = |of: fn(&ModelConfig) -> usize| {
        let mut values = candidates.iter().map(|candidate| of(&candidate.config));
        let first = values.next();
        values.any(|value| Some(value) != first)
    };
    let mut notes = Vec::new();
    let mut tokenizers = candidates
        .iter()
        .map(|candidate| candidate.tokenizer.hash());
    let first = tokenizers.next();
    if tokenizers.any(|hash| Some(hash) != first) {
        notes.push(
            "The tokenizers differ: bits per byte and accuracies compare, figures by the token \
             (costs, tokens/s) do not."
                .to_owned(),
        );
    }
    if differ(|config| config.seq_len) {
        notes.push(
            "The contexts differ: a model with a shorter one sees less of a long text, and FLOPs are \
             at each model's own."
                .to_owned(),
        );
    }
    if let Some(limit) = settings.evaluation.limit {
        notes.push(format!(
            "The first {limit} documents of each task at most; its order may not be random."
        ));
    }
    notes
}

/// Writes a report as JSON.
///
/// # Errors
/// [`EvalError::Io`].
pub fn save(report: &Report, path: &Path) -> Result<(), EvalError> {
    let json =
        serde_json::to_string_pretty(report).map_err(|error| EvalError::io(path)(error.into()))?;
    let written = write_file(path, |file| writeln!(file, "{json}"));
    written.map(drop).map_err(EvalError::io(path))
}
