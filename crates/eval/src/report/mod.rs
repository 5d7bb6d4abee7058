//! The report on models: what each costs, how fast it is, how good it is, and what it retains of the
//! first, the reference.
//!
//! For a student of distillation the reference is its teacher. Costs follow from sizes and solvers
//! (`cost.rs`), speeds are measured in turns (`speed.rs`), quality comes from tasks that every model is
//! asked alike (`question.rs`), so that differences and retention have the standard errors of paired items
//! (`quality.rs`, `estimate.rs`). Everything but the speeds is the same whenever it is computed.
//!
//! Language models and encoder-decoders are compared among themselves. What differs between the two is the
//! trait `Kind` (`kind.rs`): what small files say, what a task asks, and the workload of the speeds.

mod candidate;
mod cost;
mod encoder_decoder;
#[cfg(test)]
mod example;
mod kind;
mod labels;
mod language_model;
mod machine;
mod quality;
mod question;
mod sides;
mod speed;
mod table;

use std::io::Write;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use iiet_files::write_file;
use iiet_model::{ModelKind, model_hash};
use iiet_text::BeamSearch;
use serde::Serialize;

pub use candidate::Stack;
pub use cost::{ModelCost, TokenCost};
pub use kind::kind_of;
pub use machine::Machine;
pub use quality::{Quality, ScoreQuality, TaskQuality};
pub use sides::Sides;
pub use speed::{Round, Speed, Workload};
pub use table::table;

pub use crate::estimate::Estimate;

use candidate::{Candidate, check_memory, notes, workload};
use kind::Kind;
use question::{answers, leave_out, questions, tasks};

use crate::error::EvalError;
use crate::evaluation::{Prepared, Settings, prepare};
use crate::model::ModelScorer;
use crate::model_decoder::ModelDecoder;
use crate::scorer::Progress;
use crate::token_scorer::TokenScorer;

/// The tasks of a report on models of a kind unless others are asked for: those that need no data set.
pub fn report_tasks(kind: ModelKind) -> &'static [&'static str] {
    match kind {
        ModelKind::EncoderDecoder => &["heldout_docs"],
        _ => &["heldout_bpb", "heldout_cloze", "heldout_choice"],
    }
}

/// What models are compared on.
#[derive(Clone, Debug)]
pub struct ReportSettings {
    /// Names of tasks. The first that is about whole texts or about targets gives the bits per byte, all that
    /// have an accuracy the mean accuracy.
    pub tasks: Vec<String>,
    /// Where their data comes from, and how much of it is used.
    pub evaluation: Settings,
    /// Whether the device's memory is the machine's own: then all models must fit into what is free.
    pub host_memory: bool,
}

/// What a report measures next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Measuring<'a> {
    /// Decoding and prefill, or encoding, of all models.
    Speeds,
    /// The answers of one model to one task.
    Task {
        /// The model's label in the report.
        model: &'a str,
        /// The task, and what is asked where it asks several things.
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
    /// How targets were decoded, if any.
    #[serde(
        serialize_with = "crate::search::serialize",
        skip_serializing_if = "Option::is_none"
    )]
    pub search: Option<BeamSearch>,
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
    /// Its layers and their solvers.
    #[serde(flatten)]
    pub stacks: Sides<Stack>,
    /// The width of its states.
    pub d_model: usize,
    /// The width of its feed-forward layers.
    pub d_ff: usize,
    /// Tokens.
    pub context: usize,
    /// Tokens of its vocabulary.
    pub vocab_size: usize,
    /// What it costs.
    pub cost: ModelCost,
    /// Tokens per second.
    pub speed: Speed,
    /// What it knows.
    pub quality: Quality,
}

/// Compares models; the first is the reference.
///
/// Mistakes are found before the work: directories, tokenizers, tasks and their data are looked at
/// first. All models are in memory at once, for their speeds are measured in turns. `progress` is called
/// before each measurement; what it returns is told of a task's tokens, and dropped after the
/// measurement.
///
/// # Errors
/// [`EvalError::Nothing`] without models or tasks, [`EvalError::Kinds`] for models of two kinds,
/// [`EvalError::Twice`] for a task named twice, [`EvalError::NeedsDecoder`] and [`EvalError::NeedsScorer`] for a
/// task of the other kind, [`EvalError::Memory`] if the models do not fit, [`EvalError::Context`] for a model
/// without room to decode in, and errors of models, tokenizers and data.
pub fn report(
    models: &[PathBuf],
    settings: &ReportSettings,
    device: &Device,
    progress: &dyn Fn(Measuring<'_>) -> Box<dyn Progress>,
) -> Result<Report, EvalError> {
    match kind_of(models)? {
        ModelKind::EncoderDecoder => of_kind::<ModelDecoder>(models, settings, device, progress),
        _ => of_kind::<TokenScorer<ModelScorer>>(models, settings, device, progress),
    }
}

/// Compares models of one kind.
fn of_kind<K: Kind>(
    models: &[PathBuf],
    settings: &ReportSettings,
    device: &Device,
    progress: &dyn Fn(Measuring<'_>) -> Box<dyn Progress>,
) -> Result<Report, EvalError> {
    // What costs nothing to check comes first; data may have to be made.
    let tasks = tasks::<K>(&settings.tasks)?;
    let candidates = models.iter();
    let candidates: Vec<Candidate> = candidates
        .map(|path| Candidate::open::<K>(path, device))
        .collect::<Result<_, _>>()?;
    let tasks = tasks.into_iter();
    let tasks: Vec<Prepared> = tasks
        .map(|task| prepare(task, &settings.evaluation))
        .collect::<Result<_, _>>()?;
    let questions = questions::<K>(&tasks)?;
    let workload = workload::<K>(&candidates, &tasks)?;
    if settings.host_memory {
        check_memory(&candidates, &workload)?;
    }
    let mut notes = notes(&candidates, &settings.evaluation);

    let names = labels::labels(models);
    let loaded = models.iter().map(|path| K::load(path, device));
    let loaded: Vec<K> = loaded.collect::<Result<_, _>>()?;
    let measuring = progress(Measuring::Speeds);
    let speeds = workload.measure(&loaded, device)?;
    drop(measuring);
    let asked = loaded.iter().zip(&names);
    let mut answers = asked
        .map(|(model, name)| answers(model, name, &questions, progress))
        .collect::<Result<Vec<_>, _>>()?;
    notes.extend(leave_out(&questions, &mut answers)?);

    let models = speeds.into_iter().zip(names).enumerate();
    let models = models.map(|(at, (speed, name))| {
        let quality = Quality::new(&questions, &answers, at);
        ModelReport::new(name, [&candidates[at], &candidates[0]], speed, quality)
    });
    Ok(Report {
        models: models.collect::<Result<_, _>>()?,
        tasks: tasks.iter().map(AskedTask::new).collect(),
        workload,
        machine: Machine::this(),
        notes,
        version: env!("CARGO_PKG_VERSION"),
    })
}

impl ModelReport {
    /// On a model beside the reference.
    fn new(
        name: String,
        [own, reference]: [&Candidate; 2],
        speed: Speed,
        quality: Quality,
    ) -> Result<Self, EvalError> {
        let outline = &own.outline;
        Ok(Self {
            name,
            path: own.path.clone(),
            model_hash: model_hash(&own.path)?,
            stacks: outline.stacks.clone(),
            d_model: outline.d_model,
            d_ff: outline.d_ff,
            context: outline.context,
            vocab_size: outline.vocab_size,
            cost: ModelCost::new(own, reference),
            speed,
            quality,
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
            search: prepared.search,
            split: prepared.split.map(|split| split.to_string()),
            place: prepared.place.clone(),
            items_hash: prepared.hash.clone(),
        }
    }
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
